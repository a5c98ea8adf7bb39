//! The parts of `ci` and `nightly`. Each list has one line per part.

use std::fmt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, bail};

use crate::cargo::{self, Cargo};
use crate::{Nightly, bench, churn, one_build, soak, test, wasm_target};

/// The name of a part, and the function that runs it.
type Part<'a> = (&'static str, &'a dyn Fn() -> anyhow::Result<()>);

/// Why a part was not run.
#[derive(Debug)]
struct Skipped(&'static str);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Skipped {}

/// Runs everything that must pass before a change is merged.
///
/// # Errors
///
/// If a part fails.
pub(crate) fn ci(cargo: &Cargo, chosen: &[String]) -> anyhow::Result<()> {
    let cargo = &one_build::configure(cargo)?;
    let run = |words: &str| run(cargo, words);
    // Without each feature. `nightly` tests this and each feature alone.
    let features = || run(&format!("{} -- -D warnings", with_feature("clippy", "")));
    let dependencies = || {
        if run("deny --version").is_err() {
            return Err(Skipped("cargo-deny is not installed").into());
        }
        // The check of advisories needs network access, which CI may not have.
        run("deny --locked check bans licenses sources")
    };
    let lints = || {
        wasm_target::ensure()?;
        run("test --workspace --locked --no-run")
    };
    let parts: &[Part<'_>] = &[
        ("format", &|| run("fmt --all --check")),
        ("lints", &lints),
        ("tests-and-docs", &|| {
            test(cargo, &["--no-fail-fast".into()], &[])
        }),
        ("features", &features),
        ("packages", &|| package(cargo, "--no-verify")),
        ("dependencies", &dependencies),
    ];
    run_parts(parts, chosen)
}

/// Runs the tests that take hours.
///
/// # Errors
///
/// If a part fails.
pub(crate) fn nightly(cargo: &Cargo, options: &Nightly) -> anyhow::Result<()> {
    let tests = || {
        for round in 1..=options.rounds {
            println!("round {round} of {}", options.rounds);
            test(cargo, &[], &[]).with_context(|| format!("round {round}"))?;
        }
        Ok(())
    };
    let features = || {
        for feature in ["", "wasm", "grpc", "prpc"] {
            let lints = format!("{} -- -D warnings", with_feature("clippy", feature));
            run(cargo, &lints)?;
            run(cargo, &with_feature("test", feature))?;
        }
        run(
            cargo,
            "test -p admission-sdk --no-default-features --locked",
        )
    };
    let lints = "clippy --workspace --all-targets --locked -- -D warnings";
    let docs = || {
        let mut doc = cargo.command("doc --workspace --no-deps --locked");
        cargo::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    };
    let sequences = || {
        let mut test = cargo.command("test -p admission-host --lib --locked life_test");
        cargo::run(test.env("PROPTEST_CASES", options.sequences.to_string()))
    };
    let generated = || {
        crate::generate(cargo)?;
        let diff = ["diff", "--exit-code", "--stat", "--", "proto"];
        cargo::run(Command::new("git").args(diff).current_dir(cargo.root()))
            .context("the generated code differs from the committed code")
    };
    let bench = || match &options.against {
        Some(commit) => bench::compare(cargo, commit, 7, &[]),
        None => Err(Skipped("needs --against COMMIT").into()),
    };
    let (minutes, cycles) = (options.soak_minutes, options.cycles);
    let parts: &[Part<'_>] = &[
        ("lints", &|| run(cargo, lints)),
        ("docs", &docs),
        ("tests", &tests),
        ("load", &|| under_load(tests)),
        ("features", &features),
        ("generated", &generated),
        ("sequences", &sequences),
        ("soak", &|| soak(cargo, minutes * 60.0, None)),
        ("churn", &|| churn(cargo, cycles, cycles / 5)),
        ("packages", &|| {
            package(cargo, "--target-dir=target/package-build")
        }),
        ("bench", &bench),
    ];
    run_parts(parts, &options.parts)
}

/// Returns the arguments of cargo that test or lint the host library with one of its features.
fn with_feature(subcommand: &str, feature: &str) -> String {
    let host = "-p admission-host --locked --lib --no-default-features";
    format!("{subcommand} {host} --features={feature}")
}

/// Packages every crate that is published. The option `--no-verify` skips the compilation of
/// the packages, which takes as long as a first build.
fn package(cargo: &Cargo, option: &str) -> anyhow::Result<()> {
    let crates = "-p admission-proto -p admission-grpc -p admission-host -p admission-sdk -p admit";
    run(
        cargo,
        &format!("package --locked --allow-dirty {option} {crates}"),
    )
}

fn run(cargo: &Cargo, words: &str) -> anyhow::Result<()> {
    cargo::run(&mut cargo.command(words))
}

/// Runs `part` while other threads keep every processor busy.
fn under_load(part: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let processors = thread::available_parallelism().context("cannot count processors")?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 * processors.get() {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let result = part();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// Runs the parts that are named in `chosen`, or all if it is empty, and prints a line for
/// each. A part that fails does not stop the others.
///
/// # Errors
///
/// If a part fails, or if `chosen` has an unknown name.
fn run_parts(parts: &[Part<'_>], chosen: &[String]) -> anyhow::Result<()> {
    let names: Vec<_> = parts.iter().map(|(name, _)| *name).collect();
    for name in chosen {
        if !names.contains(&&**name) {
            bail!("unknown part `{name}`; the parts are {}", names.join(", "));
        }
    }
    let is_chosen = |name: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == name);
    let mut summary = String::new();
    let mut failed = 0;
    for (name, part) in parts.iter().filter(|(name, _)| is_chosen(name)) {
        println!("\n== {name}");
        let started = Instant::now();
        let (result, reason) = match part() {
            Ok(()) => ("ok", String::new()),
            Err(error) if error.is::<Skipped>() => ("skipped", format!(": {error}")),
            Err(error) => {
                failed += 1;
                ("FAILED", format!(": {error:#}"))
            }
        };
        println!("{result}{reason}");
        let seconds = started.elapsed().as_secs();
        let took = format!("{}m {:02}s", seconds / 60, seconds % 60);
        summary += &format!("{name:<14} {result:<8} {took:>8}{reason}\n");
    }
    println!("\n== summary\n{summary}");
    if failed > 0 {
        bail!("{failed} of the parts failed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn chosen_parts_run_in_list_order_and_a_failure_does_not_stop_the_others() {
        let ran = RefCell::new(Vec::new());
        let part = |name: &'static str, result: fn() -> anyhow::Result<()>| {
            let ran = &ran;
            move || {
                ran.borrow_mut().push(name);
                result()
            }
        };
        let (first, second) = (part("first", || Ok(())), part("second", || bail!("broken")));
        let third = part("third", || Err(Skipped("no tool").into()));
        let parts: [Part<'_>; 3] = [("first", &first), ("second", &second), ("third", &third)];

        let error = run_parts(&parts, &[]).unwrap_err();
        assert_eq!(error.to_string(), "1 of the parts failed");
        run_parts(&parts, &["third".to_owned(), "first".to_owned()]).unwrap();
        let error = run_parts(&parts, &["fourth".to_owned()]).unwrap_err();
        assert!(
            error.to_string().contains("first, second, third"),
            "{error}"
        );
        assert_eq!(
            ran.into_inner(),
            ["first", "second", "third", "first", "third"]
        );
    }
}
