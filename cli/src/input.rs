//! The pins to check, from the command line and from files.

mod ensure;
mod lines;
mod resolved;

use std::path::PathBuf;

use admission_host::Pin;
use admission_proto::ServiceUrl;
use anyhow::bail;

use self::ensure::EnsureFile;
use self::lines::{Lines, is_stdin, shown};
use self::resolved::ResolvedVersions;
use crate::args::PinArgs;
use crate::error::UserError;
use crate::platform::Platform;

/// All pins to check, and the services that they belong to.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) pins: Vec<Pin>,
    /// The service of each ensure file, if the file names one.
    services: Vec<(PathBuf, Option<ServiceUrl>)>,
}

impl Inputs {
    /// Reads all pins, in the order of [`PinArgs`].
    ///
    /// # Errors
    ///
    /// For the first problem of a file, for all versions that cannot be resolved, and if
    /// there is no pin.
    pub(crate) fn read(args: PinArgs) -> anyhow::Result<Self> {
        let files = args
            .ensure_files
            .iter()
            .chain(&args.resolved_versions)
            .chain(&args.file);
        if files.filter(|path| is_stdin(path)).count() > 1 {
            bail!("only one input can be stdin");
        }
        let mut inputs = Self {
            pins: args.pins,
            services: Vec::new(),
        };
        let platform = args.platform.unwrap_or_else(Platform::of_this_machine);
        let skipped = inputs.read_ensure_files(&args.ensure_files, &platform)?;
        if let Some(path) = &args.resolved_versions {
            let resolved = ResolvedVersions::read(&mut Lines::open_or_stdin(path)?)?;
            inputs.pins.extend(resolved.pins);
        }
        if let Some(path) = &args.file {
            inputs.read_pins(&mut Lines::open_or_stdin(path)?)?;
        }
        if !inputs.pins.is_empty() {
            return Ok(inputs);
        }
        Err(match skipped {
            true => UserError::new(format!("no pin to check on {platform}"))
                .hint("--platform OS-ARCH checks the packages for another platform"),
            false => UserError::new("no pin to check").hint(
                "name pins as package:instance_id, or pass --ensure-file FILE, \
                 --resolved-versions FILE or --pins FILE",
            ),
        }
        .into())
    }

    /// Reads all ensure files. Returns whether they have packages for other platforms.
    fn read_ensure_files(
        &mut self,
        paths: &[PathBuf],
        platform: &Platform,
    ) -> anyhow::Result<bool> {
        let mut skipped = false;
        let mut unresolved = Vec::new();
        let mut error = UserError::new("some versions cannot be resolved offline");
        for path in paths {
            let file = EnsureFile::read(path, platform)?;
            self.pins.extend(file.pins);
            self.services.push((path.clone(), file.service_url));
            skipped |= file.skipped;
            if !file.unresolved.is_empty() {
                unresolved.extend(file.unresolved);
                error = error.hint(file.hint);
            }
        }
        if !unresolved.is_empty() {
            return Err(error.details(unresolved).into());
        }
        Ok(skipped)
    }

    /// Reads a list of pins, one `package:instance_id` a line.
    fn read_pins(&mut self, lines: &mut Lines) -> anyhow::Result<()> {
        while let Some(line) = lines.next()? {
            if !line.is_empty() {
                let pin = line.parse::<Pin>();
                self.pins.push(pin.map_err(|error| lines.error(error))?);
            }
        }
        Ok(())
    }

    /// Returns the one service of all pins. A file without a $ServiceURL belongs to `default`.
    ///
    /// # Errors
    ///
    /// If files belong to different services.
    pub(crate) fn service_url(&self, default: ServiceUrl) -> anyhow::Result<ServiceUrl> {
        let Some(first) = self.services.first() else {
            return Ok(default);
        };
        let url_of = |(_, url): &(PathBuf, Option<ServiceUrl>)| {
            url.clone().unwrap_or_else(|| default.clone())
        };
        let url = url_of(first);
        let Some(other) = self
            .services
            .iter()
            .find(|file| !url_of(file).is_same_service(&url))
        else {
            return Ok(url);
        };
        let (file, other_file) = (shown(&first.0), shown(&other.0));
        let other_url = url_of(other);
        let text = format!("{file} is for {url}, but {other_file} is for {other_url}");
        let hint =
            "check the files separately, or pass --service-url URL to use one service for all";
        Err(UserError::new(text).hint(hint).into())
    }
}

#[cfg(test)]
mod tests {
    use super::lines::tests::lines;
    use super::*;

    pub(super) const ID: &str = "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC";
    pub(super) const SHA1: &str = "deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";

    fn pins(text: &str) -> Result<Vec<String>, String> {
        let mut inputs = Inputs {
            pins: Vec::new(),
            services: Vec::new(),
        };
        let read = inputs.read_pins(&mut lines(text));
        read.map_err(|error| error.to_string())?;
        Ok(inputs.pins.iter().map(Pin::to_string).collect())
    }

    #[test]
    fn a_list_of_pins_may_have_comments_and_blank_lines() {
        let text = format!("# two\r\n\r\na:{ID}\r\n  b/c:{ID}  \n\n# end");
        assert_eq!(
            pins(&text),
            Ok(vec![format!("a:{ID}"), format!("b/c:{ID}")])
        );
    }

    #[test]
    fn the_error_names_the_first_malformed_pin_of_a_list() {
        assert_eq!(
            pins(&format!("a:{ID}\n\nnonsense\nworse")),
            Err("in:3: not a pin \"nonsense\": must be package:instance_id".to_owned())
        );
    }
}
