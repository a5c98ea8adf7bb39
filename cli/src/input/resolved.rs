//! Resolved-versions files, as `cipd ensure-file-resolve` writes them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use admission_host::Pin;
use admission_proto::{HashMode, ObjectRef, validate_package_name, validate_version};

use super::lines::Lines;
use super::{Found, InputError, Problem};

/// Reads the pins of all triples, in their order.
///
/// # Errors
///
/// As [`ResolvedVersions::read`].
pub(super) fn read(lines: &mut Lines, pins: &mut Vec<Pin>) -> Result<(), InputError> {
    let mut resolved = ResolvedVersions::default();
    while let Some(one) = next(lines)? {
        pins.push(one.pin.clone());
        resolved.add(one).map_err(|problem| lines.broken(problem))?;
    }
    Ok(())
}

/// What versions of packages were resolved to.
#[derive(Debug, Default)]
pub(super) struct ResolvedVersions(HashMap<(String, String), (Pin, usize)>);

impl ResolvedVersions {
    /// Reads a whole file.
    ///
    /// # Errors
    ///
    /// Also if it has one version of a package twice, with different instances: which
    /// of them is to be deployed would depend on who reads the file.
    pub(super) fn read(lines: &mut Lines) -> Result<Self, InputError> {
        let mut resolved = Self::default();
        while let Some(one) = next(lines)? {
            resolved.add(one).map_err(|problem| lines.broken(problem))?;
        }
        Ok(resolved)
    }

    fn add(&mut self, Resolved { version, pin, line }: Resolved) -> Result<(), Problem> {
        match self.0.entry((pin.package().to_owned(), version)) {
            Entry::Vacant(entry) => {
                entry.insert((pin, line));
            }
            Entry::Occupied(entry) => {
                let (known, line) = entry.get();
                if *known != pin {
                    return Err(Problem::Contradiction {
                        version: entry.key().1.clone(),
                        known: known.clone(),
                        line: *line,
                    });
                }
            }
        }
        Ok(())
    }

    /// Looks up what `version` of `package` was resolved to.
    pub(super) fn get(&self, package: &str, version: &str) -> Option<&Pin> {
        let key = (package.to_owned(), version.to_owned());
        self.0.get(&key).map(|(pin, _)| pin)
    }
}

/// One triple.
struct Resolved {
    version: String,
    pin: Pin,
    /// Where its instance ID stands.
    line: usize,
}

/// Reads the next triple of package, version and instance ID, each on a line of its own,
/// and the blank line that ends it.
fn next(lines: &mut Lines) -> Result<Option<Resolved>, InputError> {
    let package = loop {
        match lines.next()? {
            Some(line) if line.is_empty() => {}
            Some(package) => break package,
            None => return Ok(None),
        }
    };
    validate_package_name(&package).map_err(|problem| lines.broken(problem))?;
    let version = lines.next_text("a version")?;
    validate_version(&version).map_err(|problem| lines.broken(problem))?;
    let instance_id = lines.next_text("an instance ID")?;
    let pin = Pin::new(&package, &instance_id).map_err(|problem| lines.broken(problem))?;
    let is_instance_id = ObjectRef::from_instance_id(&version, HashMode::Any).is_ok();
    if is_instance_id && version != instance_id {
        return Err(lines.broken(Problem::OtherInstance(version)));
    }
    let line = lines.number();
    if let Some(text) = lines.next()?
        && !text.is_empty()
    {
        return Err(lines.broken(Problem::Unexpected {
            expected: "a blank line after the instance ID",
            found: Found::Text(text),
        }));
    }
    Ok(Some(Resolved { version, pin, line }))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ID, SHA1, lines};
    use super::*;

    fn pins(text: &str) -> Result<Vec<String>, String> {
        let mut pins = Vec::new();
        read(&mut lines(text), &mut pins).map_err(|error| error.to_string())?;
        Ok(pins.iter().map(Pin::to_string).collect())
    }

    #[test]
    fn resolved_versions_are_triples_with_blank_lines_between() {
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
    fn a_triple_that_is_not_one_is_refused_where_it_breaks() {
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
                "in:3: the instance \"qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC\" cannot be resolved to another one",
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
        let error =
            format!("in:8: \"latest\" is another instance here than on line 3, where it is a:{ID}");
        let refused = ResolvedVersions::read(&mut lines(&*text)).expect_err("it should be refused");
        assert_eq!(refused.to_string(), error);
        assert_eq!(pins(&text), Err(error));
    }
}
