//! The names of networks, one table for all components of this process.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use bireme_core::{NamedNetwork, NamesChange};
use parking_lot::{Mutex, RwLock};

/// The names of one network.
#[derive(Default)]
struct Table(RwLock<HashMap<String, Vec<IpAddr>>>);

impl Table {
    fn extend(&self, name: &str, found: &mut Vec<IpAddr>) {
        if let Some(addresses) = self.0.read().get(name) {
            found.extend(addresses);
        }
    }
}

/// Every network that a component of this process was ever on.
#[derive(Default)]
pub(crate) struct Networks(Mutex<HashMap<String, Arc<Table>>>);

impl Networks {
    fn table(&self, network: &str) -> Arc<Table> {
        let mut tables = self.0.lock();
        Arc::clone(tables.entry(network.to_owned()).or_default())
    }

    pub(crate) fn change(&self, network: &str, change: NamesChange) {
        let table = self.table(network);
        let mut names = table.0.write();
        let changed = match change {
            NamesChange::All(all) => {
                names.clear();
                all
            }
            NamesChange::Some(some) => some,
        };
        for (name, addresses) in changed {
            if addresses.is_empty() {
                names.remove(&name);
            } else {
                names.insert(name, addresses);
            }
        }
    }

    /// What a component on `networks` finds.
    pub(crate) fn view(&self, networks: Vec<NamedNetwork>) -> View {
        View(networks.into_iter().map(|network| (self.table(&network.id), network)).collect())
    }
}

/// The names that one component finds: those of its networks, and its own links there.
#[derive(Default)]
pub(crate) struct View(Vec<(Arc<Table>, NamedNetwork)>);

impl View {
    /// The addresses of a name in lower case, network by network; `None` when no network knows it.
    pub(crate) fn get(&self, name: &str) -> Option<Vec<IpAddr>> {
        let mut found = Vec::new();
        for (table, network) in &self.0 {
            table.extend(name, &mut found);
            if let Some(stands_for) = network.links.get(name) {
                table.extend(stands_for, &mut found);
            }
        }
        (!found.is_empty()).then_some(found)
    }

    pub(crate) fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_component_finds_the_names_of_its_networks_and_its_links() {
        let networks = Networks::default();
        let ip = |last| vec![IpAddr::from([10, 0, 0, last])];
        let some = |pairs: &[(&str, u8)]| {
            let name =
                |(name, last): &(&str, u8)| ((*name).to_owned(), if *last == 0 { Vec::new() } else { ip(*last) });
            NamesChange::Some(pairs.iter().map(name).collect())
        };
        let links = BTreeMap::from([("db".to_owned(), "postgres".to_owned())]);
        let view = networks.view(vec![
            NamedNetwork { id: "one".to_owned(), links },
            NamedNetwork { id: "two".to_owned(), links: BTreeMap::new() },
        ]);
        networks.change("one", some(&[("web", 1), ("postgres", 2)]));
        networks.change("two", some(&[("web", 3)]));
        networks.change("three", some(&[("elsewhere", 4)]));
        assert_eq!(view.get("web"), Some([ip(1), ip(3)].concat()));
        assert_eq!(view.get("db"), Some(ip(2)));
        assert!(!view.contains_key("elsewhere"));
        networks.change("one", some(&[("postgres", 0)]));
        assert_eq!(view.get("db"), None);
        networks.change("one", NamesChange::All(BTreeMap::new()));
        assert_eq!(view.get("web"), Some(ip(3)));
    }
}
