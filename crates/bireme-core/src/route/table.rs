//! Many routes, of which a request finds the most specific in as many steps as its path has segments.

use std::collections::HashMap;

use super::{Captures, Route, Segment, name_of};

/// Routes with what they lead to.
#[derive(Clone, Debug)]
pub struct RouteTable<T> {
    entries: Vec<(Route, T)>,
    /// By their hosts, in lower case.
    hosts: HashMap<String, Node>,
    /// Those without host.
    any_host: Node,
}

/// What a path leads to, segment by segment. The entries are by their places in the table.
#[derive(Clone, Debug, Default)]
struct Node {
    literals: HashMap<String, Node>,
    parameter: Option<Box<Node>>,
    /// A route that ends here.
    exact: Option<usize>,
    /// A route of everything from here on.
    subtree: Option<usize>,
}

impl Node {
    /// Answers which entry had the place, where one had it: the two clash.
    fn enter(&mut self, route: &Route, at: usize) -> Option<usize> {
        let mut node = self;
        for segment in &route.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::Parameter(_) => node.parameter.get_or_insert_default(),
            };
        }
        if route.subtree { &mut node.subtree } else { &mut node.exact }.replace(at)
    }

    /// The first of those that match the rest of a path, in the order in which routes are tried: a literal, a parameter, the
    /// end, a subtree.
    fn find(&self, rest: &str) -> Option<usize> {
        if let Some(after) = rest.strip_prefix('/') {
            let end = after.find('/').unwrap_or(after.len());
            let (head, tail) = after.split_at(end);
            let literal = self.literals.get(head).and_then(|node| node.find(tail));
            let below = || self.parameter.as_ref().filter(|_| !head.is_empty())?.find(tail);
            if let Some(found) = literal.or_else(below) {
                return Some(found);
            }
        }
        self.exact.filter(|_| rest.is_empty()).or(self.subtree)
    }

    /// The same for a whole path, of which `/` alone is the end as nothing is.
    fn find_path(&self, path: &str) -> Option<usize> {
        self.exact.filter(|_| path == "/").or_else(|| self.find(path))
    }
}

impl<T> Default for RouteTable<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), hosts: HashMap::new(), any_host: Node::default() }
    }
}

impl<T> RouteTable<T> {
    /// # Errors
    /// The two routes that clash, the one that was there first.
    pub fn new(routes: impl IntoIterator<Item = (Route, T)>) -> Result<Self, (Route, Route)> {
        let mut table = Self { entries: routes.into_iter().collect(), ..Self::default() };
        for (at, (route, _)) in table.entries.iter().enumerate() {
            let node = match &route.host {
                Some(host) => table.hosts.entry(host.clone()).or_default(),
                None => &mut table.any_host,
            };
            if let Some(other) = node.enter(route, at) {
                return Err((table.entries[other].0.clone(), route.clone()));
            }
        }
        Ok(table)
    }

    /// The most specific route for a request, what it leads to, and what it captured. `host` is the `Host` header's
    /// value (a port is ignored), `path` the request's path as sent, without its query.
    pub fn find<'t, 'p>(&'t self, host: &str, path: &'p str) -> Option<(&'t Route, &'t T, Captures<'t, 'p>)> {
        let of_host = || {
            if self.hosts.is_empty() {
                return None;
            }
            self.hosts.get(&name_of(host).to_ascii_lowercase())?.find_path(path)
        };
        let (route, value) = &self.entries[of_host().or_else(|| self.any_host.find_path(path))?];
        Some((route, value, route.matches(host, path)?))
    }

    /// Whether there is no route at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
