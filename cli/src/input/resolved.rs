//! Resolved-versions files, which `cipd ensure-file-resolve` writes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use admission_host::Pin;
use admission_proto::{HashMode, ObjectRef, quote, validate_package_name, validate_version};

use super::lines::Lines;

/// The instance of each version of each package.
#[derive(Debug, Default)]
pub(super) struct ResolvedVersions {
    /// In the order of the file.
    pub(super) pins: Vec<Pin>,
    /// By package and version, with the line of the instance ID.
    by_version: HashMap<(String, String), (Pin, usize)>,
}

impl ResolvedVersions {
    /// Reads a whole file of entries. An entry has three lines: a package, a version and an
    /// instance ID. Blank lines separate entries.
    ///
    /// # Errors
    ///
    /// For the first broken line. A version with two instances is an error, because readers
    /// could choose different ones.
    pub(super) fn read(lines: &mut Lines) -> anyhow::Result<Self> {
        let mut resolved = Self::default();
        while let Some(package) = lines.next()? {
            if !package.is_empty() {
                resolved.read_entry(package, lines)?;
            }
        }
        Ok(resolved)
    }

    /// Reads the rest of an entry, after the line of the package.
    fn read_entry(&mut self, package: String, lines: &mut Lines) -> anyhow::Result<()> {
        validate_package_name(&package).map_err(|error| lines.error(error))?;
        let version = next_text(lines, "a version")?;
        validate_version(&version).map_err(|error| lines.error(error))?;
        let instance_id = next_text(lines, "an instance ID")?;
        let pin = Pin::new(&package, &instance_id).map_err(|error| lines.error(error))?;
        let is_instance_id = ObjectRef::from_instance_id(&version, HashMode::Any).is_ok();
        if is_instance_id && version != instance_id {
            let version = quote(&version);
            return Err(lines.error(format_args!(
                "the version is the instance ID {version}, so the instance ID must be the same"
            )));
        }
        let line = lines.number();
        match lines.next()? {
            Some(text) if !text.is_empty() => {
                let found = quote(&text);
                return Err(lines.error(format_args!(
                    "expected a blank line after the instance ID, found {found}"
                )));
            }
            _ => {}
        }
        self.pins.push(pin.clone());
        match self.by_version.entry((package, version)) {
            Entry::Vacant(entry) => {
                entry.insert((pin, line));
                Ok(())
            }
            Entry::Occupied(entry) if entry.get().0 == pin => Ok(()),
            Entry::Occupied(entry) => {
                let version = quote(&entry.key().1);
                let (known, line) = entry.get();
                Err(lines.error(format_args!(
                    "version {version} has two instances: on line {line} it is {known}"
                )))
            }
        }
    }

    /// Returns the instance of `version` of `package`.
    pub(super) fn get(&self, package: &str, version: &str) -> Option<&Pin> {
        let key = (package.to_owned(), version.to_owned());
        self.by_version.get(&key).map(|(pin, _)| pin)
    }
}

/// Reads the next line, which must not be blank. `expected` describes it in the error.
fn next_text(lines: &mut Lines, expected: &str) -> anyhow::Result<String> {
    let found = match lines.next()? {
        Some(text) if !text.is_empty() => return Ok(text),
        Some(_) => "a blank line",
        None => "the end of the file",
    };
    Err(lines.error(format_args!("expected {expected}, found {found}")))
}

#[cfg(test)]
mod tests {
    use super::super::lines::tests::lines;
    use super::super::tests::{ID, SHA1};
    use super::*;

    fn pins(text: &str) -> Result<Vec<String>, String> {
        let resolved =
            ResolvedVersions::read(&mut lines(text)).map_err(|error| error.to_string())?;
        Ok(resolved.pins.iter().map(Pin::to_string).collect())
    }

    #[test]
    fn entries_of_three_lines_are_separated_by_blank_lines() {
        let text = format!(
            "# made by a tool\r\n\na/b\r\n\tgit_revision:1\r\n\t{ID}\r\n\r\n\n\
             # another\nc\n# in between\nlatest\n{ID}"
        );
        assert_eq!(
            pins(&text),
            Ok(vec![format!("a/b:{ID}"), format!("c:{ID}")])
        );
    }

    #[test]
    fn a_malformed_entry_is_refused_with_its_line() {
        let refusals = [
            ("a\n\n", "in:2: expected a version, found a blank line"),
            ("a", "in:2: expected a version, found the end of the file"),
            (
                "a\nlatest\n",
                "in:3: expected an instance ID, found the end of the file",
            ),
            (
                "a\n:latest\n",
                "in:2: bad version \":latest\": not an instance ID, a ref or a tag",
            ),
            (
                "a\nlatest\nshort\n",
                "in:3: not a valid package instance ID \"short\": not a valid size for an encoded digest",
            ),
            (
                "a\nlatest\nqUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC\n@Subdir x\n",
                "in:4: expected a blank line after the instance ID, found \"@Subdir x\"",
            ),
            (
                "a\nqUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC\ndeadbeefdeadbeefdeadbeefdeadbeefdeadbeef\n",
                "in:3: the version is the instance ID \"qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC\", so the instance ID must be the same",
            ),
            (
                "@Subdir x\n",
                r#"in:1: invalid package name "@Subdir x": must be a slash-separated path where each component matches "[a-z0-9_\-\.]+""#,
            ),
            (
                "a/${platform}\nlatest\n",
                r#"in:1: invalid package name "a/${platform}": must be a slash-separated path where each component matches "[a-z0-9_\-\.]+""#,
            ),
        ];
        for (text, refused) in refusals {
            assert_eq!(pins(text), Err(refused.to_owned()));
        }
    }

    #[test]
    fn versions_are_looked_up_by_package_and_version() {
        let text = format!("a\nlatest\n{ID}\n\na\nnext\n{SHA1}\n\na\nlatest\n{ID}\n");
        let resolved = ResolvedVersions::read(&mut lines(text)).expect("the file is good");
        let found = |package, version| resolved.get(package, version).map(Pin::to_string);
        assert_eq!(found("a", "latest"), Some(format!("a:{ID}")));
        assert_eq!(found("a", "next"), Some(format!("a:{SHA1}")));
        assert_eq!(found("a", "newest"), None);
        assert_eq!(found("b", "latest"), None);
    }

    #[test]
    fn a_version_with_two_instances_is_refused() {
        let text = format!("a\nlatest\n{ID}\n\na\nlatest\n{SHA1}\n");
        let error = format!("in:8: version \"latest\" has two instances: on line 3 it is a:{ID}");
        assert_eq!(pins(&text), Err(error));
    }
}
