//! Pull and unpack of an image of ten layers from a registry on the loopback interface.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bireme_testing::{Engine, free_port, workspace};

use crate::Peers;
use crate::cost::{Cost, Costs, cost};
use crate::registry::{Registry, ten_layers};
use crate::sample::{figure, print_table};

/// For how long ext4 does not use an inode again that was removed. Until then it looks through them one by one for another,
/// and whoever comes first after a removal waits for that. Source: Linux, fs/ext4/ialloc.c, `recently_deleted`.
const FORGOTTEN: Duration = Duration::from_secs(61);

const COLUMNS: [&str; 5] =
    ["what", "s: median (least–most)", "processor time, s", "most memory, MiB", "times as long as Bireme"];

pub(crate) fn run(peers: &Peers) {
    let place = Place::new();
    let rounds = peers.rounds.div_ceil(3);
    let port = free_port();
    let registry = Registry::start(&place.0, port, &[]);
    let image = ten_layers(&place.0, &registry);
    let name = registry.name(image.name);
    let data = place.folder("bireme");
    let engine = Engine::on(&data);

    let docker = |socket: &str, words: &[&str]| {
        let mut command = Command::new("docker");
        command.args(["-H", socket]).args(words);
        command
    };
    let mut contenders = vec![Contender::new("Bireme, `docker pull`", {
        let (host, pid, name) = (engine.host(), engine.pid(), name.clone());
        move |turn| match turn {
            Turn::Clear => clear(&mut docker(&host, &["rmi", "-f", &name])),
            Turn::Pull => cost(&mut docker(&host, &["pull", "-q", &name]), &[pid]),
        }
    })];
    contenders.push(Contender::new("`skopeo copy`, then `umoci unpack`", {
        let (name, folder) = (name.clone(), place.folder("umoci"));
        move |turn| {
            let layout = format!("{}:ten", folder.join("layout").display());
            match turn {
                Turn::Clear => {
                    clear(Command::new("rm").arg("-rf").args([folder.join("layout"), folder.join("bundle")]))
                }
                Turn::Pull => {
                    let mut copy = Command::new("skopeo");
                    copy.args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false"]);
                    copy.args([format!("docker://{name}:latest"), format!("oci:{layout}")]);
                    let mut unpack = Command::new("umoci");
                    unpack.args(["unpack", "--image", &layout]).arg(folder.join("bundle"));
                    cost(&mut copy, &[]).then(cost(&mut unpack, &[]))
                }
            }
        }
    }));
    // Each of these has a loopback interface of its own.
    let mut elsewhere = Vec::new();
    if let (Some(socket), Some(pid)) = (&peers.dockerd, peers.dockerd_pid) {
        let enter = ["nsenter".to_owned(), format!("--net=/proc/{pid}/ns/net")];
        elsewhere.push(Registry::start(&place.0, port, &enter));
        let (host, name) = (format!("unix://{}", socket.display()), name.clone());
        contenders.push(Contender::new("dockerd 26.1.5, `docker pull`", move |turn| match turn {
            Turn::Clear => clear(&mut docker(&host, &["rmi", "-f", &name])),
            Turn::Pull => cost(&mut docker(&host, &["pull", "-q", &name]), &[pid]),
        }));
    }
    if let Some(podman) = &peers.podman {
        let line: Vec<String> = podman.split(' ').map(str::to_owned).collect();
        elsewhere.push(Registry::start(&place.0, port, &line[..2]));
        let name = name.clone();
        contenders.push(Contender::new("`podman pull` 4.3.1", move |turn| {
            let mut command = Command::new(&line[0]);
            command.args(&line[1..]);
            match turn {
                Turn::Clear => clear(command.args(["rmi", "-f", &name])),
                Turn::Pull => cost(command.args(["pull", "-q", "--tls-verify=false", &name]), &[]),
            }
        }));
    }
    // The first round fills caches and is not counted.
    for round in 0..=rounds {
        for contender in &mut contenders {
            (contender.act)(Turn::Clear);
        }
        sync(&place.0);
        if round > 0 {
            std::thread::sleep(FORGOTTEN);
        }
        for contender in &mut contenders {
            // What others have written is not to be waited for in this turn.
            sync(&place.0);
            let cost = (contender.act)(Turn::Pull);
            if round > 0 {
                contender.costs.add(cost);
            }
        }
    }
    let ours = contenders[0].costs.wall();
    let rows: Vec<_> = contenders
        .iter()
        .map(|one| {
            let mut row = vec![one.name.to_owned()];
            row.extend(one.costs.told());
            row.push(figure(one.costs.wall() / ours));
            row
        })
        .collect();
    print_table(
        &format!(
            "Pull and unpack of an image of ten layers, {} MB in {} files and folders, {rounds} rounds",
            image.megabytes, image.files
        ),
        &COLUMNS,
        &rows,
    );
    for contender in &mut contenders {
        (contender.act)(Turn::Clear);
    }
    drop((contenders, elsewhere));
    engine.finish();
}

fn sync(place: &Path) {
    clear(Command::new("sync").arg("-f").arg(place));
}

enum Turn {
    /// Have nothing of the image.
    Clear,
    Pull,
}

struct Contender {
    name: &'static str,
    act: Box<dyn FnMut(Turn) -> Cost>,
    costs: Costs,
}

impl Contender {
    fn new(name: &'static str, act: impl FnMut(Turn) -> Cost + 'static) -> Self {
        Self { name, act: Box::new(act), costs: Costs::default() }
    }
}

/// Runs what is not counted, and may have nothing to do.
fn clear(command: &mut Command) -> Cost {
    let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    Cost::default()
}

/// A folder on the disk that the peers have their folders on; removed at the end.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        let path = workspace().join("target/bench").join(std::process::id().to_string());
        std::fs::create_dir_all(&path).expect("target/ can be written to");
        Self(path)
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path).expect("target/ can be written to");
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
