//! What is remembered across openings, and what of it survives a database that is lost, old or damaged.

use std::collections::BTreeMap;

use super::row::*;
use super::*;

#[tokio::test]
async fn remembers_across_openings_and_refuses_a_newer_schema() {
    let folder = tempfile::tempdir().unwrap();
    let memory = StateStore::open(folder.path()).unwrap();
    memory.insert_workload("1", "web", &"fixed", &1, Sync::Normal).await.unwrap();
    assert!(memory.insert_workload("2", "web", &"fixed", &1, Sync::Normal).await.is_err(), "names are unique");
    memory.update_workload("1", "www", &2).await.unwrap();
    drop(memory);
    let memory = StateStore::open(folder.path()).unwrap();
    assert_eq!(memory.workloads::<String, i32>().unwrap().0, [("www".to_owned(), "fixed".to_owned(), 2)]);
    assert!(memory.delete_workload("1").await);
    assert!(memory.workloads::<String, i32>().unwrap().0.is_empty());
    memory.connection.lock().pragma_update(None, "user_version", 99).unwrap();
    drop(memory);
    let refusal = StateStore::open(folder.path()).err().unwrap().to_string();
    assert!(refusal.contains("schema version 99"), "{refusal}");
}

#[tokio::test]
async fn a_network_never_takes_the_place_of_another_in_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let network = |digit: &str| Network {
        id: digit.repeat(64),
        name: "front".to_owned(),
        driver: "bridge".to_owned(),
        created: 7,
        internal: false,
        attachable: false,
        ipv6: false,
        pools: Vec::new(),
        options: BTreeMap::new(),
        labels: BTreeMap::new(),
    };
    let memory = StateStore::open(folder.path()).unwrap();
    memory.put_network(&network("1")).await.unwrap();
    assert!(memory.put_network(&network("2")).await.is_err(), "names are unique");
    let unread = "insert into networks (id, name, record) values ('3', 'back', 'nonsense')";
    memory.connection.lock().execute(unread, []).unwrap();
    let back = Network { name: "back".to_owned(), ..network("4") };
    memory.put_network(&back).await.unwrap();
    memory.delete_network(&back.id).await.unwrap();
    // What an older version left of one that another took the name of goes.
    memory.copy(Copy::Put(Kind::Network, "2".repeat(64), json(&network("2"))));
    drop(memory);
    let memory = StateStore::open(folder.path()).unwrap();
    assert_eq!(memory.networks().unwrap().0, [network("1")]);
    assert_eq!(memory.records.names(Kind::Network).into_iter().collect::<Vec<_>>(), ["1".repeat(64)]);
}

impl Record for String {
    fn is_of(&self, _key: &str, _name: &str) -> bool {
        true
    }
}

impl Record for i32 {
    fn is_of(&self, _key: &str, _name: &str) -> bool {
        true
    }
}

fn volume(root: &Path, name: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        driver: "local".to_owned(),
        mountpoint: root.join("volumes").join(name).join("_data"),
        created: 7,
        options: BTreeMap::new(),
        labels: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
        anonymous: true,
    }
}

fn names(memory: &StateStore) -> Vec<String> {
    memory.volumes().unwrap().0.into_iter().map(|volume| volume.name).collect()
}

#[tokio::test]
async fn volumes_come_from_their_records_and_folders_when_the_database_is_lost() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    let memory = StateStore::open(root).unwrap();
    let recorded = volume(root, "recorded");
    std::fs::create_dir_all(&recorded.mountpoint).unwrap();
    memory.put_volume(&recorded).await.unwrap();
    memory.put_volume(&volume(root, "gone")).await.unwrap();
    assert!(memory.delete_volume("gone").await);
    drop(memory);
    std::fs::write(root.join("engine.db"), "nonsense").unwrap();
    for folder in ["adopted/_data", "no-data", ".removed/x/_data", "lost+found/_data"] {
        std::fs::create_dir_all(root.join("volumes").join(folder)).unwrap();
    }
    std::fs::write(root.join("volumes/file"), "x").unwrap();
    std::os::unix::fs::symlink("/etc", root.join("volumes/link")).unwrap();
    let memory = StateStore::open(root).unwrap();
    assert_eq!(names(&memory), ["adopted", "recorded"]);
    let [adopted, again] = &memory.volumes().unwrap().0[..] else { panic!("two") };
    assert_eq!(*again, recorded);
    assert!(!adopted.anonymous && adopted.labels.is_empty());
    // Adopted once, it has a record like any other.
    drop(memory);
    std::fs::remove_file(root.join("engine.db")).unwrap();
    assert_eq!(names(&StateStore::open(root).unwrap()), ["adopted", "recorded"]);
}

#[tokio::test]
async fn a_copy_of_the_database_brings_back_no_volume_that_was_removed() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    let memory = StateStore::open(root).unwrap();
    for name in ["removed", "stays"] {
        let volume = volume(root, name);
        std::fs::create_dir_all(&volume.mountpoint).unwrap();
        memory.put_volume(&volume).await.unwrap();
    }
    memory.back_up().await.unwrap();
    assert!(memory.delete_volume("removed").await);
    std::fs::remove_dir_all(root.join("volumes/removed")).unwrap();
    drop(memory);
    for name in ["engine.db", "engine.db-wal", "engine.db-shm"] {
        let _ = std::fs::remove_file(root.join(name));
    }
    let memory = StateStore::open(root).unwrap();
    assert_eq!(names(&memory), ["stays"]);
    // A folder that is gone from a database that is whole is made again, so that what mounts it starts.
    std::fs::remove_dir_all(root.join("volumes/stays")).unwrap();
    drop(memory);
    assert_eq!(names(&StateStore::open(root).unwrap()), ["stays"]);
    assert!(root.join("volumes/stays/_data").is_dir());
}

#[tokio::test]
async fn a_removal_that_cannot_be_remembered_is_carried_out_all_the_same() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path();
    let memory = StateStore::open(root).unwrap();
    for name in ["gone", "stays"] {
        let volume = volume(root, name);
        std::fs::create_dir_all(&volume.mountpoint).unwrap();
        memory.put_volume(&volume).await.unwrap();
    }
    // As on a disk that has no room at all.
    let full = |memory: &StateStore, full: bool| {
        memory.lock().pragma_update(None, "query_only", full).unwrap();
    };
    std::fs::create_dir_all(root.join("volumes/.removed")).unwrap();
    std::fs::rename(root.join("volumes/gone"), root.join("volumes/.removed/gone")).unwrap();
    full(&memory, true);
    assert!(!memory.delete_volume("gone").await);
    assert_eq!(names(&memory), ["stays"], "nothing answers it");
    assert!(memory.owes(Kind::Volume, "gone"));
    full(&memory, false);
    memory.put_volume(&volume(root, "new")).await.unwrap();
    assert!(!memory.owes(Kind::Volume, "gone"));
    drop(memory);
    assert_eq!(names(&StateStore::open(root).unwrap()), ["new", "stays"]);
}

#[tokio::test]
async fn one_record_that_cannot_be_read_costs_no_other() {
    let temp = tempfile::tempdir().unwrap();
    let memory = StateStore::open(temp.path()).unwrap();
    memory.insert_workload("1", "good", &"fixed", &1, Sync::Full).await.unwrap();
    memory.insert_workload("2", "bad", &7, &1, Sync::Normal).await.unwrap();
    assert_eq!(memory.workloads::<String, i32>().unwrap().0.len(), 1);
    assert_eq!(memory.ids().unwrap().len(), 2);
}
