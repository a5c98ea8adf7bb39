//! A plugin with the modes of the reference's tests, over gRPC, to test any host.
//!
//! `modes PLUGIN_ADMISSION <MODE>` is an admission plugin. `modes PLUGIN_BASIC <MODE>` only
//! calls the host.

mod admission;
mod basic;

use anyhow::bail;

/// The exit status of a mode that crashes.
const CRASH: i32 = 2;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["PLUGIN_ADMISSION", mode] => admission::run(mode),
        ["PLUGIN_BASIC", mode] => basic::run(mode),
        _ => bail!("usage: modes PLUGIN_ADMISSION|PLUGIN_BASIC <MODE>"),
    }
}
