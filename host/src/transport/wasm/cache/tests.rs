//! Tests of the cache of compiled components.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::transport::wasm::engine::engine;

fn component() -> Vec<u8> {
    wat::parse_str("(component (core module (func (export \"f\"))))").unwrap()
}

fn compile(engine: &Engine, bytes: &[u8]) -> Component {
    Component::from_binary(engine, bytes).unwrap()
}

fn open(directory: &Path) -> Option<Cache> {
    Cache::open(directory.to_owned(), &"test".into())
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

/// Stores one component in a new cache and returns its file.
fn stored(engine: &Engine, cache: &Cache) -> PathBuf {
    cache.store(engine, &component(), &compile(engine, &component()));
    let [path] = &*cache.compiled().unwrap() else {
        panic!("one file was stored");
    };
    path.clone()
}

#[test]
fn a_stored_component_is_loaded_for_its_own_bytes_alone() {
    let engine = engine().unwrap();
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("of/the/cache");
    let cache = open(&directory).unwrap();
    assert!(cache.load(engine, &component()).is_none());
    let path = stored(engine, &cache);

    assert_eq!(mode_of(&directory), 0o700);
    assert_eq!(mode_of(&path), 0o600);
    assert!(cache.load(engine, &component()).is_some());
    let other = wat::parse_str("(component)").unwrap();
    assert!(cache.load(engine, &other).is_none());
}

#[test]
fn a_damaged_file_is_dropped_and_replaced() {
    let engine = engine().unwrap();
    let home = tempfile::tempdir().unwrap();
    let cache = open(home.path()).unwrap();
    let path = stored(engine, &cache);
    let good = fs::read(&path).unwrap();

    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for bad in [&good[..good.len() / 2], &[], &flipped] {
        fs::write(&path, bad).unwrap();
        assert!(cache.load(engine, &component()).is_none());
        assert!(!path.exists());
        assert_eq!(stored(engine, &cache), path);
        assert!(cache.load(engine, &component()).is_some());
    }
}

#[test]
fn a_file_with_a_valid_hash_that_is_not_code_is_dropped() {
    let engine = engine().unwrap();
    let home = tempfile::tempdir().unwrap();
    let cache = open(home.path()).unwrap();
    cache.write(&key(engine, &component()), b"no code").unwrap();
    assert!(cache.load(engine, &component()).is_none());
    assert!(cache.compiled().unwrap().is_empty());
}

#[test]
fn a_symbolic_link_is_not_followed() {
    let engine = engine().unwrap();
    let home = tempfile::tempdir().unwrap();
    let cache = open(&home.path().join("cache")).unwrap();
    let path = stored(engine, &cache);
    let elsewhere = home.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    assert!(cache.load(engine, &component()).is_none());
    assert!(elsewhere.exists());
}

#[test]
fn a_directory_that_others_can_write_to_is_not_used() {
    let home = tempfile::tempdir().unwrap();
    for mode in [0o770, 0o702] {
        set_mode(home.path(), mode);
        assert!(open(home.path()).is_none());
    }
    set_mode(home.path(), 0o755);
    assert!(open(home.path()).is_some());
}

#[test]
fn a_file_is_not_used_as_the_directory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(open(file.path()).is_none());
    assert!(open(&file.path().join("below")).is_none());
}

#[test]
fn a_directory_that_was_removed_costs_a_compilation() {
    let engine = engine().unwrap();
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("cache");
    let cache = open(&directory).unwrap();
    fs::remove_dir(&directory).unwrap();
    cache.store(engine, &component(), &compile(engine, &component()));
    assert!(cache.load(engine, &component()).is_none());
    assert!(!directory.exists());
}

#[test]
fn the_most_recently_used_are_kept() {
    let engine = engine().unwrap();
    let home = tempfile::tempdir().unwrap();
    let cache = open(home.path()).unwrap();
    let used = stored(engine, &cache);
    let now = SystemTime::now();
    let set_age = |path: &Path, seconds| {
        let modified = now - Duration::from_secs(seconds);
        File::options()
            .write(true)
            .open(path)
            .and_then(|file| file.set_modified(modified))
            .unwrap();
    };
    set_age(&used, 9999);
    let others: Vec<PathBuf> = (0..40)
        .map(|age| {
            let path = home.path().join(format!("{age}{SUFFIX}"));
            fs::write(&path, "").unwrap();
            set_age(&path, 60 + age);
            path
        })
        .collect();

    assert!(cache.load(engine, &component()).is_some());
    cache.prune(now).unwrap();

    assert_eq!(cache.compiled().unwrap().len(), MAX_FILES);
    assert!(used.exists());
    let (newer, older) = others.split_at(MAX_FILES - 1);
    assert!(newer.iter().all(|path| path.exists()));
    assert!(older.iter().all(|path| !path.exists()));
}

#[test]
fn an_unfinished_file_is_removed_once_it_is_abandoned() {
    let home = tempfile::tempdir().unwrap();
    let cache = open(home.path()).unwrap();
    let unfinished = home.path().join(format!("{UNFINISHED}1"));
    let foreign = home.path().join("notes.txt");
    fs::write(&unfinished, "").unwrap();
    fs::write(&foreign, "").unwrap();
    let now = SystemTime::now();
    cache.prune(now).unwrap();
    assert!(unfinished.exists());
    cache.prune(now + ABANDONED * 2).unwrap();
    assert!(!unfinished.exists());
    assert!(foreign.exists());
}
