//! Workloads of which there is a record that cannot be read: it is damaged, or a newer engine wrote it.
//!
//! Nothing is done to such a one unasked: what runs of it goes on, its name stays taken, what it uses stays, and its record is
//! left as it is. The engine that wrote it finds all of it again; or it is removed by force.
//!
//! ```text
//! the part that changes cannot be read    a workload as any other, but that it is only looked at and removed by force
//! the part that is fixed cannot, either   nothing is known of it but ID and name: here
//! ```

use std::net::IpAddr;

use bireme_core::spec::WorkloadKind;
use parking_lot::RwLock;
use serde_json::Value;

use crate::EngineError;
use crate::refusal::ContainerRefusal;

/// One whose record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) id: String,
    pub(crate) name: String,
    /// What the record holds, whatever that is: the part that was fixed at create, and the part that changes.
    pub(crate) config: String,
    pub(crate) mutable: String,
    /// What cannot be read in it.
    pub(crate) why: String,
    /// The part that was fixed can be relied on: it is a workload as any other, but for what its record mentions and cannot
    /// be read.
    pub(crate) known: bool,
}

impl Unreadable {
    /// Whether the record has `word` as one of its strings: the name of a volume, the ID of an image or a network. Of one that
    /// is no JSON nobody knows.
    fn mentions(&self, word: &str) -> bool {
        let word = serde_json::to_string(word).unwrap_or_default();
        [&self.config, &self.mutable]
            .iter()
            .any(|text| text.contains(&word) || serde_json::from_str::<serde::de::IgnoredAny>(text).is_err())
    }

    /// Its addresses, with the IDs of their networks, as far as they can be read.
    pub(crate) fn addresses(&self) -> Vec<(String, IpAddr)> {
        let value = parse(&self.mutable);
        let endpoints = value["endpoints"].as_array().into_iter().flatten();
        endpoints
            .flat_map(|endpoint| {
                let network = endpoint["network"].as_str().unwrap_or_default();
                let addresses = [&endpoint["ipv4"][0], &endpoint["ipv6"][0]].into_iter();
                addresses.filter_map(move |address| Some((network.to_owned(), address.as_str()?.parse().ok()?)))
            })
            .collect()
    }

    /// The app that it belongs to.
    pub(crate) fn app(&self) -> Option<String> {
        parse(&self.config).pointer("/spec/app")?.as_str().map(str::to_owned)
    }

    /// What it is, as far as that can be read.
    pub(crate) fn kind(&self) -> Option<WorkloadKind> {
        serde_json::from_value(parse(&self.config).pointer("/spec/kind")?.clone()).ok()
    }

    /// Why nothing can be done with it.
    pub(crate) fn refusal(&self) -> EngineError {
        refusal(&self.name, &self.why)
    }
}

/// Why nothing is done with the workload called `name`.
pub(crate) fn refusal(name: &str, why: &str) -> EngineError {
    ContainerRefusal::Unreadable { name: name.to_owned(), why: why.to_owned() }.into()
}

/// Any JSON; null for what is none.
pub(crate) fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// The members of a list that can be read.
pub(crate) fn list<T: serde::de::DeserializeOwned>(of: &Value, field: &str) -> Vec<T> {
    let all = of[field].as_array().into_iter().flatten();
    all.filter_map(|one| serde_json::from_value(one.clone()).ok()).collect()
}

/// Those of which nothing is known but ID and name, and what the records of the others mention.
#[derive(Debug, Default)]
pub(crate) struct AllUnreadable(RwLock<Vec<Unreadable>>);

impl AllUnreadable {
    pub(crate) fn add(&self, one: Unreadable) {
        self.0.write().push(one);
    }

    pub(crate) fn remove(&self, id: &str) {
        self.0.write().retain(|one| one.id != id);
    }

    /// IDs of those of which nothing else is known.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.0.read().iter().filter(|one| !one.known).map(|one| one.id.clone()).collect()
    }

    /// IDs of those whose records mention `word`.
    pub(crate) fn mentioning(&self, word: &str) -> Vec<String> {
        self.0.read().iter().filter(|one| one.mentions(word)).map(|one| one.id.clone()).collect()
    }

    /// The one with this name or ID.
    pub(crate) fn exactly(&self, name: &str) -> Option<Unreadable> {
        self.0.read().iter().find(|one| !one.known && (one.id == name || one.name == name)).cloned()
    }

    /// Those whose IDs begin so.
    pub(crate) fn beginning(&self, id: &str) -> Vec<Unreadable> {
        self.0.read().iter().filter(|one| !one.known && !id.is_empty() && one.id.starts_with(id)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_record_mentions_is_used_and_it_is_found_by_name_and_id() {
        let one = |id: &str, name: &str, config: &str| Unreadable {
            id: id.to_owned(),
            name: name.to_owned(),
            config: config.to_owned(),
            mutable: r#"{"endpoints":[{"network":"n1","ipv4":["10.0.0.2",24],"ipv6":null,"network_name":{"new":1}}]}"#
                .to_owned(),
            why: "missing field `restart`".to_owned(),
            known: false,
        };
        let all = AllUnreadable::default();
        all.add(one("abc1", "db", r#"{"name":"pg data","image":"sha256:12","spec":{"app":"shop"}}"#));
        all.add(one("abd2", "web", "{}"));
        assert_eq!(all.mentioning("pg data"), ["abc1"]);
        assert_eq!(all.mentioning("sha256:12"), ["abc1"]);
        assert!(all.mentioning("pg").is_empty() && all.mentioning("sha256:1").is_empty());
        let found = |name: &str| all.exactly(name).map(|one| one.id);
        assert_eq!([found("db"), found("abd2")].map(Option::unwrap), ["abc1", "abd2"]);
        assert!(found("ab").is_none() && found("").is_none());
        assert_eq!((all.beginning("ab").len(), all.beginning("abd").len(), all.beginning("").len()), (2, 1, 0));
        let db = all.exactly("db").unwrap();
        assert!(db.refusal().to_string().contains("missing field `restart`"));
        assert_eq!(db.app().as_deref(), Some("shop"));
        assert_eq!(db.addresses(), [("n1".to_owned(), "10.0.0.2".parse().unwrap())]);
        all.remove("abc1");
        assert_eq!(all.ids(), ["abd2"]);
        // What is known otherwise is found there, and uses what its record mentions all the same.
        all.add(Unreadable { known: true, ..one("abf4", "partly", r#"{"a":"n7"}"#) });
        assert!(all.exactly("partly").is_none() && all.beginning("abf").is_empty());
        assert_eq!((all.ids().len(), all.mentioning("n7")), (1, vec!["abf4".to_owned()]));
        all.remove("abf4");
        // Half of it may be gone, and what it mentioned with that.
        all.add(one("abe3", "torn", r#"{"name":"pg da"#));
        assert_eq!(all.mentioning("anything"), ["abe3"]);
    }
}
