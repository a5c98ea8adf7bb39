//! Ensure files in `admit check`.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests create files, and panic on errors"
)]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use conformance::modes::native;
use serde_json::Value;
use tempfile::TempDir;

const ID: &str = "qUiQTy8PR5uPgZdpSzAYSw0u0cHNKh7A-4XSmaGSpEcC";
const SHA1: &str = "deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";

/// An ensure file with every kind of statement.
const CIPD_ENSURE: &str = "\
# For the tests.\r
$ServiceURL https://cipd.example.com/\r
$ParanoidMode CheckPresence
$ResolvedVersions versions/cipd.versions
$OverrideInstallMode copy
$VerifiedPlatform linux-amd64 mac-arm64
$VerifiedPlatform linux-arm64

allow/tool/${platform}    latest
  allow/${os}/${arch}\tgit_revision:1

@Subdir only/${os=mac}
allow/mac                 latest

@Subdir other
# The same pin in two subdirs: checked once.
allow/tool/${os}-${arch}  latest
allow/pinned              deadbeefdeadbeefdeadbeefdeadbeefdeadbeef
allow/windows/${os=windows}  not a version
";

/// The resolved-versions file of [`CIPD_ENSURE`].
fn versions() -> String {
    let mut text = "# made by a tool\n".to_owned();
    for (package, version) in [
        ("allow/tool/linux-arm64", "latest"),
        ("allow/tool/mac-arm64", "latest"),
        ("allow/linux/arm64", "git_revision:1"),
        ("allow/mac/arm64", "git_revision:1"),
        ("allow/mac", "latest"),
    ] {
        text.push_str(&format!("\n{package}\n\t{version}\n\t{ID}\n"));
    }
    text
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("versions")).unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn complete_folder() -> TempDir {
    folder(&[
        ("cipd.ensure", CIPD_ENSURE),
        ("versions/cipd.versions", &versions()),
    ])
}

/// Prepares to run `admit check` with the plugin of the conformance tests.
fn admit(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_admit"));
    command
        .arg("check")
        .args(["--format", "json"])
        .args(args)
        .arg("--")
        .arg(native("conformance-fixture"))
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

fn pins(run: &Output) -> Vec<String> {
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    let pin = |line: &str| {
        let pin: Value = serde_json::from_str(line).unwrap();
        let field = |name: &str| pin[name].as_str().unwrap().to_owned();
        format!("{}:{}", field("package"), field("instance_id"))
    };
    let stdout = str::from_utf8(&run.stdout).unwrap();
    stdout.lines().map(pin).collect()
}

/// Returns the text on stderr, and requires that nothing was checked.
fn refusal(folder: &TempDir, args: &[&str]) -> String {
    let run = admit(folder.path(), args).output().unwrap();
    assert_eq!(run.status.code(), Some(2), "{run:?}");
    assert!(run.stdout.is_empty(), "{run:?}");
    String::from_utf8(run.stderr).unwrap()
}

#[test]
fn the_pins_of_an_ensure_file_depend_on_the_platform() {
    let folder = complete_folder();
    let args = |platform| ["--ensure-file", "cipd.ensure", "--platform", platform];
    assert_eq!(
        pins(&admit(folder.path(), &args("linux-arm64")).output().unwrap()),
        [
            format!("allow/tool/linux-arm64:{ID}"),
            format!("allow/linux/arm64:{ID}"),
            format!("allow/pinned:{SHA1}"),
        ]
    );
    assert_eq!(
        pins(&admit(folder.path(), &args("mac-arm64")).output().unwrap()),
        [
            format!("allow/tool/mac-arm64:{ID}"),
            format!("allow/mac/arm64:{ID}"),
            format!("allow/mac:{ID}"),
            format!("allow/pinned:{SHA1}"),
        ]
    );
}

#[test]
fn the_default_platform_is_that_of_this_machine() {
    let folder = folder(&[("cipd.ensure", &format!("allow/${{platform}} {ID}"))]);
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => panic!("no name for {other}"),
    };
    let run = admit(folder.path(), &["--ensure-file", "cipd.ensure"]).output();
    assert_eq!(pins(&run.unwrap()), [format!("allow/linux-{arch}:{ID}")]);
}

#[test]
fn pins_come_in_the_order_of_the_options_in_the_help() {
    let folder = folder(&[
        ("one", &format!("allow/b {ID}")),
        ("two", &format!("allow/a {ID}\nallow/b {ID}")),
        ("resolved", &format!("allow/c\nlatest\n{ID}")),
        ("pins", &format!("allow/d:{ID}")),
    ]);
    let first = format!("allow/z:{ID}");
    let args = "--pins pins --resolved-versions resolved --ensure-file one --ensure-file two";
    let args: Vec<_> = args.split(' ').chain([&*first]).collect();
    let packages = ["z", "b", "a", "b", "c", "d"];
    assert_eq!(
        pins(&admit(folder.path(), &args).output().unwrap()),
        packages.map(|package| format!("allow/{package}:{ID}"))
    );
}

#[test]
fn paths_in_an_ensure_file_on_stdin_are_relative_to_the_working_directory() {
    let folder = complete_folder();
    let stdin = File::open(folder.path().join("cipd.ensure")).unwrap();
    let run = admit(
        folder.path(),
        &["--ensure-file", "-", "--platform", "mac-arm64"],
    )
    .stdin(stdin)
    .output();
    assert_eq!(pins(&run.unwrap()).len(), 4);
    assert_eq!(
        refusal(&folder, &["--ensure-file", "-", "--pins", "-"]),
        "error: only one input can be stdin\n"
    );
}

#[test]
fn the_path_of_the_resolved_versions_is_relative_to_the_ensure_file() {
    let folder = complete_folder();
    fs::create_dir(folder.path().join("elsewhere")).unwrap();
    let args = ["--ensure-file", "../cipd.ensure", "--platform", "mac-arm64"];
    let run = admit(&folder.path().join("elsewhere"), &args).output();
    assert_eq!(pins(&run.unwrap()).len(), 4);
}

#[test]
fn all_versions_that_cannot_be_resolved_offline_are_named() {
    let folder = complete_folder();
    fs::write(
        folder.path().join("bare.ensure"),
        format!("a latest\nb {ID}\nc k:v with spaces\n"),
    )
    .unwrap();
    let args = "--ensure-file cipd.ensure --ensure-file bare.ensure --platform linux-amd64";
    assert_eq!(
        refusal(&folder, &args.split(' ').collect::<Vec<_>>()),
        "error: some versions cannot be resolved offline
  cipd.ensure:9: version \"latest\" of allow/tool/linux-amd64 is not in versions/cipd.versions
  cipd.ensure:10: version \"git_revision:1\" of allow/linux/amd64 is not in versions/cipd.versions
  cipd.ensure:17: version \"latest\" of allow/tool/linux-amd64 is not in versions/cipd.versions
  bare.ensure:1: version \"latest\" of a is not an instance ID
  bare.ensure:3: version \"k:v with spaces\" of c is not an instance ID
  hint: run `cipd ensure-file-resolve -ensure-file cipd.ensure`
  hint: put `$ResolvedVersions cipd.versions` and `$VerifiedPlatform linux-amd64` at the top of bare.ensure, then run `cipd ensure-file-resolve -ensure-file bare.ensure`
"
    );
    let platform = ["--ensure-file", "cipd.ensure", "--platform", "freebsd-386"];
    assert!(refusal(&folder, &platform).ends_with(
        "  hint: put `$VerifiedPlatform freebsd-386` at the top of cipd.ensure, \
         then run `cipd ensure-file-resolve -ensure-file cipd.ensure`\n"
    ));
}

#[test]
fn a_broken_or_missing_file_is_named() {
    let folder = folder(&[
        ("nurbs.ensure", "\n# fine\n$Nurbs x\n"),
        ("lost.ensure", &format!("$ResolvedVersions lost\na {ID}")),
        ("folder.ensure", "$ResolvedVersions versions\n"),
        ("bad.ensure", "$ResolvedVersions bad\n"),
        ("bad", "a\nlatest\n"),
        ("garbage.ensure", "a\0b latest\n"),
    ]);
    fs::write(folder.path().join("binary.ensure"), b"\x7fELF\x02\xff\n").unwrap();
    fs::write(folder.path().join("endless.ensure"), [b'a'; 100_000]).unwrap();
    let refusal = |file: &str| refusal(&folder, &["--ensure-file", file]);
    assert_eq!(
        refusal("nurbs.ensure"),
        "error: nurbs.ensure:3: unknown $setting: \"$Nurbs\"\n"
    );
    let absent = "No such file or directory (os error 2)";
    assert_eq!(
        refusal("absent"),
        format!("error: cannot read absent\n  caused by: {absent}\n")
    );
    assert_eq!(
        refusal("lost.ensure"),
        format!(
            "error: cannot read lost, the $ResolvedVersions of lost.ensure\n  caused by: {absent}\n  \
             hint: run `cipd ensure-file-resolve -ensure-file lost.ensure`\n"
        )
    );
    let directory = "Is a directory (os error 21)";
    assert_eq!(
        refusal("folder.ensure"),
        format!("error: cannot read versions\n  caused by: {directory}\n")
    );
    assert_eq!(
        refusal("versions"),
        format!("error: cannot read versions\n  caused by: {directory}\n")
    );
    assert_eq!(
        refusal("bad.ensure"),
        "error: bad:3: expected an instance ID, found the end of the file\n"
    );
    assert_eq!(
        refusal("binary.ensure"),
        "error: binary.ensure:1: not valid UTF-8\n"
    );
    assert_eq!(
        refusal("endless.ensure"),
        "error: endless.ensure:1: longer than 65536 bytes\n"
    );
    assert!(
        refusal("garbage.ensure")
            .starts_with(r#"error: garbage.ensure:1: invalid package name "a\x00b""#)
    );
}

#[test]
fn an_ensure_file_without_packages_for_the_platform_is_an_error() {
    let folder = folder(&[("mac.ensure", "a/${os=mac} latest")]);
    assert_eq!(
        refusal(
            &folder,
            &["--ensure-file", "mac.ensure", "--platform", "linux-amd64"]
        ),
        "error: no pin to check on linux-amd64\n  hint: --platform OS-ARCH checks the packages for another platform\n"
    );
    assert_eq!(
        refusal(&folder, &["--platform", "mac-arm64"])
            .lines()
            .next(),
        Some("error: the following required arguments were not provided:")
    );
    assert_eq!(
        refusal(
            &folder,
            &["--platform", "mac", "--ensure-file", "mac.ensure"]
        )
        .lines()
        .next(),
        Some(
            "error: invalid value 'mac' for '--platform <OS-ARCH>': platform must be <os>-<arch>, got \"mac\""
        )
    );
}

#[test]
fn plugins_get_the_service_url_of_the_ensure_file() {
    let folder = folder(&[
        (
            "there",
            &format!("$ServiceURL http://localhost:8080/\nservice {ID}"),
        ),
        ("nowhere", &format!("service {ID}")),
    ]);
    let service_url = |args: &str| {
        let args: Vec<_> = args.split(' ').collect();
        let run = admit(folder.path(), &args).output().unwrap();
        let pin: Value = serde_json::from_slice(&run.stdout).unwrap();
        pin["message"].as_str().unwrap().to_owned()
    };
    assert_eq!(service_url("--ensure-file there"), "http://localhost:8080");
    assert_eq!(
        service_url("--ensure-file nowhere"),
        "https://chrome-infra-packages.appspot.com"
    );
    let other = "--service-url https://c.example.com/";
    assert_eq!(
        service_url(&format!("--ensure-file there {other}")),
        "https://c.example.com"
    );
    assert_eq!(
        service_url(&format!("service:{ID} {other}")),
        "https://c.example.com"
    );
}

#[test]
fn ensure_files_must_belong_to_one_service() {
    let at = |url: &str, package: &str| format!("$ServiceURL {url}\nallow/{package} {ID}");
    let folder = folder(&[
        ("here", &at("https://cipd.example.com/", "a")),
        ("here-too", &at("https://cipd.example.com", "b")),
        ("there", &at("http://localhost:8080", "c")),
        ("nowhere", &format!("allow/d {ID}")),
    ]);
    let files = |files: &'static str| {
        let args = files.split(' ').flat_map(|file| ["--ensure-file", file]);
        args.collect::<Vec<_>>()
    };
    assert_eq!(
        pins(
            &admit(folder.path(), &files("here here-too"))
                .output()
                .unwrap()
        )
        .len(),
        2
    );
    let hint =
        "hint: check the files separately, or pass --service-url URL to use one service for all";
    assert_eq!(
        refusal(&folder, &files("here here-too there")),
        format!(
            "error: here is for https://cipd.example.com, but there is for http://localhost:8080\n  {hint}\n"
        )
    );
    assert_eq!(
        refusal(&folder, &files("nowhere here")),
        format!(
            "error: nowhere is for https://chrome-infra-packages.appspot.com, but here is for https://cipd.example.com\n  {hint}\n"
        )
    );
    let args = [
        &files("here there nowhere")[..],
        &["--service-url", "https://c.example.com"],
    ];
    assert_eq!(
        pins(&admit(folder.path(), &args.concat()).output().unwrap()).len(),
        3
    );
}
