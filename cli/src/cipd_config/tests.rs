//! The sources of `cipd`'s configuration, and their order.

use std::fs;
use std::os::unix::ffi::OsStringExt as _;

use tempfile::TempDir;

use super::*;

/// The variables and configuration files of a machine.
struct Machine {
    folder: TempDir,
    variables: Vec<(&'static str, OsString)>,
}

impl Machine {
    fn new() -> Self {
        Self {
            folder: TempDir::new().expect("a folder"),
            variables: Vec::new(),
        }
    }

    fn variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        fs::write(self.path(name), text).expect("the folder takes it");
        self
    }

    fn load(&self) -> Result<CipdConfig, String> {
        let variable = |name: &str| {
            let mut variables = self.variables.iter();
            variables.find_map(|(known, value)| (*known == name).then(|| value.clone()))
        };
        let folder = self.folder.path().to_str().expect("a name in UTF-8");
        CipdConfig::load_from(variable, &self.path("default"))
            .map(|config| CipdConfig {
                origin: config.origin.replace(folder, ""),
                ..config
            })
            .map_err(|error| error.to_string().replace(folder, ""))
    }

    fn argv(&self) -> Result<Vec<OsString>, String> {
        self.load().map(|config| config.argv)
    }
}

fn file_with(cmd: &str) -> String {
    format!("plugins {{ admission {{ cmd: '{cmd}' args: 'arg 1' }} }}")
}

fn argv(argv: &[&str]) -> Result<Vec<OsString>, String> {
    Ok(argv.iter().map(Into::into).collect())
}

#[test]
fn the_environment_comes_before_the_file() {
    let machine = Machine::new().file("default", file_with("p"));
    assert_eq!(machine.argv(), argv(&["p", "arg 1"]));
    assert_eq!(machine.load().expect("it is good").origin, "/default");

    let machine = machine.variable(PLUGIN, r#" ["./q", "", "\u00e9"] "#);
    assert_eq!(machine.argv(), argv(&["./q", "", "é"]));
    assert_eq!(machine.load().expect("it is good").origin, PLUGIN);
}

#[test]
fn an_empty_command_line_in_the_environment_counts_as_unset() {
    for empty in ["", "null", "[]", " [ ] "] {
        let machine = Machine::new().variable(PLUGIN, empty);
        assert_eq!(
            machine.argv(),
            Err("cipd has no admission plugin: CIPD_ADMISSION_PLUGIN is unset or empty, and /default does not exist".into())
        );
        let machine = machine.file("default", file_with("p"));
        assert_eq!(machine.argv(), argv(&["p", "arg 1"]));
    }
}

#[test]
fn a_command_line_with_an_empty_program_counts_as_set() {
    for (value, args) in [("[null]", &[""][..]), (r#"["", null]"#, &["", ""])] {
        let machine = Machine::new()
            .variable(PLUGIN, value)
            .file("default", file_with("p"));
        assert_eq!(machine.argv(), argv(args));
    }
}

#[test]
fn a_command_line_must_be_a_list_of_strings() {
    for value in [
        "p",
        "'p'",
        "\"p\"",
        "{}",
        "[1]",
        "[[]]",
        "[\"p\"",
        "[\"p\"],",
        "true",
        "[\"\\z\"]",
    ] {
        let machine = Machine::new().variable(PLUGIN, value);
        assert_eq!(
            machine.argv(),
            Err(format!(
                "bad CIPD_ADMISSION_PLUGIN {}: not a valid JSON",
                quote(value)
            ))
        );
    }
    let garbage = OsString::from_vec(b"[\"\xff\"]".to_vec());
    assert_eq!(
        Machine::new().variable(PLUGIN, garbage).argv(),
        Err("bad CIPD_ADMISSION_PLUGIN \"[\\\"\u{fffd}\\\"]\": not a valid JSON".into())
    );
}

#[test]
fn the_variable_replaces_the_default_file() {
    let machine = Machine::new()
        .file("default", file_with("p"))
        .file("other", file_with("q"));
    let other = machine.path("absent/../other");
    assert_eq!(machine.variable(FILE, other).argv(), argv(&["q", "arg 1"]));

    let machine = Machine::new().file("default", file_with("p"));
    assert_eq!(
        machine.variable(FILE, "-").argv(),
        Err("cipd has no admission plugin: CIPD_ADMISSION_PLUGIN is unset or empty, and CIPD_CONFIG_FILE is `-`, which disables the file".into())
    );
    let machine = Machine::new().file("default", file_with("p"));
    assert_eq!(machine.variable(FILE, "").argv(), argv(&["p", "arg 1"]));
}

#[test]
fn a_file_without_a_program_names_no_plugin() {
    for text in [
        "",
        "plugins { admission { args: 'a' } }",
        "other { cmd: 'p' }",
    ] {
        assert_eq!(
            Machine::new().file("default", text).argv(),
            Err("cipd has no admission plugin: CIPD_ADMISSION_PLUGIN is unset or empty, and /default names no plugin".into())
        );
    }
}

#[test]
fn a_broken_file_is_an_error_even_if_the_environment_names_the_plugin() {
    for environment in ["", r#"["p"]"#] {
        let machine = || Machine::new().variable(PLUGIN, environment);
        for relative in ["other", "./-", "--", " /"] {
            assert_eq!(
                machine().variable(FILE, relative).argv(),
                Err(format!(
                    "bad CIPD_CONFIG_FILE \"{relative}\": must be an absolute path"
                ))
            );
        }
        let absent = machine();
        let path = absent.path("absent");
        assert_eq!(
            absent.variable(FILE, path).argv(),
            Err("loading CIPD config: cannot read /absent".into())
        );
        let folder = machine();
        let path = folder.path(".");
        assert_eq!(
            folder.variable(FILE, path).argv(),
            Err("loading CIPD config: cannot read ".into())
        );
        assert_eq!(
            machine().file("default", "plugins {\n  cmd }").argv(),
            Err("loading CIPD config: /default:2: expected `:`, found \"}\"".into())
        );
        assert_eq!(
            machine().file("default", vec![b' '; MAX_FILE + 1]).argv(),
            Err("loading CIPD config: /default: longer than 1048576 bytes".into())
        );
        assert_eq!(
            machine().variable(FILE, "/dev/zero").argv(),
            Err("loading CIPD config: /dev/zero: longer than 1048576 bytes".into())
        );
    }
}

#[test]
fn the_service_comes_from_the_environment() {
    let machine = || Machine::new().variable(PLUGIN, r#"["p"]"#);
    let service = |url| {
        let config = machine().variable(SERVICE_URL, url).load()?;
        Ok(config.service_url.map(|url| url.to_string()))
    };
    assert_eq!(service(""), Ok(None));
    assert_eq!(service("https://a/"), Ok(Some("https://a".to_owned())));
    assert_eq!(
        service("a"),
        Err("bad CIPD_SERVICE_URL: expecting a root URL such as https://chrome-infra-packages.appspot.com, not \"a\"".to_owned())
    );
}
