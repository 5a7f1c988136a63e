//! Which HTTP requests a component serves: the `bireme.http.route` label.
//!
//! A route is an optional host and a path of segments: `/tally` (exactly that), `/users/:id` (any one segment there),
//! `/api/...` (the folder and everything below it). Of several routes that match, the most specific wins: one with a
//! host before one without, then segment by segment from the left a literal before a parameter before a subtree. So any
//! two routes that differ in more than the names of their parameters are ordered, and only those that do not clash.

mod table;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use self::table::RouteTable;

/// One route of a component.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Route {
    host: Option<String>,
    segments: Vec<Segment>,
    subtree: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Segment {
    Literal(String),
    Parameter(String),
}

/// Why a text is not a route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("route {text:?} {reason}")]
pub struct RouteError {
    /// The route as it was written.
    pub text: String,
    /// What is wrong with it, to follow the route in a sentence.
    pub reason: &'static str,
}

impl Route {
    /// The route of a component that names none: `/...`, every request.
    pub fn everything() -> Self {
        Self { host: None, segments: Vec::new(), subtree: true }
    }

    /// Whether no request could tell this route from `other`: alike but for the names of parameters.
    pub fn clashes_with(&self, other: &Self) -> bool {
        self.host == other.host && self.subtree == other.subtree && self.literals().eq(other.literals())
    }

    /// How many segments its path has.
    pub fn depth(&self) -> usize {
        self.segments.len()
    }

    /// What requests tell it by, alike for two routes that clash and for no others.
    pub fn shape(&self) -> String {
        let mut text = self.host.clone().unwrap_or_default();
        for literal in self.literals() {
            // No literal is empty.
            text.push('/');
            text.push_str(literal.unwrap_or_default());
        }
        text.push_str(if self.subtree { "/..." } else { "" });
        text
    }

    /// The segments, `None` for a parameter.
    fn literals(&self) -> impl Iterator<Item = Option<&str>> {
        self.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => Some(text.as_str()),
            Segment::Parameter(_) => None,
        })
    }

    fn path(&self) -> String {
        let mut text = String::new();
        for segment in &self.segments {
            text.push('/');
            match segment {
                Segment::Literal(literal) => text.push_str(literal),
                Segment::Parameter(name) => {
                    text.push(':');
                    text.push_str(name);
                }
            }
        }
        if self.subtree {
            text.push_str("/...");
        } else if text.is_empty() {
            text.push('/');
        }
        text
    }

    fn matches<'r, 'p>(&'r self, host: &str, path: &'p str) -> Option<Captures<'r, 'p>> {
        if self.host.as_ref().is_some_and(|want| !want.eq_ignore_ascii_case(name_of(host))) {
            return None;
        }
        let mut rest = path;
        let mut parameters = Vec::new();
        for segment in &self.segments {
            let after = rest.strip_prefix('/')?;
            let end = after.find('/').unwrap_or(after.len());
            let (head, tail) = after.split_at(end);
            match segment {
                Segment::Literal(literal) if literal == head => {}
                Segment::Literal(_) => return None,
                Segment::Parameter(_) if head.is_empty() => return None,
                Segment::Parameter(name) => parameters.push((name.as_str(), head)),
            }
            rest = tail;
        }
        match (self.subtree, rest) {
            (true, _) => Some(Captures { parameters, trailing: Some(rest) }),
            (false, "") => Some(Captures { parameters, trailing: None }),
            (false, "/") if self.segments.is_empty() => Some(Captures { parameters, trailing: None }),
            (false, _) => None,
        }
    }
}

/// A `Host` header's value without its port.
fn name_of(host: &str) -> &str {
    host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |s| s.0)
}

impl FromStr for Route {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, RouteError> {
        let refuse = |reason| RouteError { text: text.to_owned(), reason };
        let slash =
            text.find('/').ok_or_else(|| refuse("has no path: it must be like /tally, /api/... or host/path"))?;
        let (host, path) = text.split_at(slash);
        let host = match host {
            "" => None,
            host if host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-')) => {
                Some(host.to_ascii_lowercase())
            }
            _ => return Err(refuse("has a host with characters that a host name cannot have (leave the port out)")),
        };
        let mut segments = Vec::new();
        let mut subtree = false;
        if path != "/" {
            let mut parts = path[1..].split('/').peekable();
            while let Some(part) = parts.next() {
                match part {
                    "..." if parts.peek().is_none() => subtree = true,
                    "..." => return Err(refuse("has ... before its end")),
                    "" => return Err(refuse("has an empty segment")),
                    "." | ".." => return Err(refuse("has a segment that clients resolve away")),
                    part if part.bytes().any(|b| b <= b' ' || b == 0x7f || matches!(b, b'?' | b'#' | b'*')) => {
                        return Err(refuse("has a character that a path cannot have (* is written ... here)"));
                    }
                    part => match part.strip_prefix(':') {
                        Some("") => return Err(refuse("has a parameter without a name")),
                        Some(name) => {
                            let parameter = Segment::Parameter(name.to_owned());
                            if segments.contains(&parameter) {
                                return Err(refuse("names a parameter twice"));
                            }
                            segments.push(parameter);
                        }
                        None => segments.push(Segment::Literal(part.to_owned())),
                    },
                }
            }
        }
        Ok(Self { host, segments, subtree })
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.host.as_deref().unwrap_or(""))?;
        f.write_str(&self.path())
    }
}

impl TryFrom<String> for Route {
    type Error = RouteError;
    fn try_from(text: String) -> Result<Self, RouteError> {
        text.parse()
    }
}

impl From<Route> for String {
    fn from(route: Route) -> String {
        route.to_string()
    }
}

/// What of a request's path a route left open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures<'r, 'p> {
    /// By their names, in the order of the path.
    pub parameters: Vec<(&'r str, &'p str)>,
    /// For a subtree: the rest of the path, empty or with its leading slash.
    pub trailing: Option<&'p str>,
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::*;
    use proptest::prelude::*;

    fn table(routes: &[&str]) -> RouteTable<String> {
        RouteTable::new(routes.iter().map(|r| (r.parse().unwrap(), (*r).to_owned()))).unwrap()
    }

    fn check(routes: &[&str], path: &str, expected: Option<&str>) {
        let table = table(routes);
        let (host, path) = path.split_at(path.find('/').unwrap());
        assert_eq!(table.find(host, path).map(|found| found.1.as_str()), expected, "{host}{path} in {routes:?}");
    }

    #[test]
    fn the_most_specific_route_wins() {
        let all = &["/...", "/", "/tally", "/api/...", "/api/users/:id", "/api/users/me", "example.com/tally"];
        check(all, "/", Some("/"));
        check(all, "/tally", Some("/tally"));
        check(all, "/tally/", Some("/..."));
        check(all, "/tallyho", Some("/..."));
        check(all, "/api", Some("/api/..."));
        check(all, "/api/", Some("/api/..."));
        check(all, "/apis", Some("/..."));
        check(all, "/api/users/me", Some("/api/users/me"));
        check(all, "/api/users/7", Some("/api/users/:id"));
        check(all, "/api/users/7/x", Some("/api/..."));
        check(all, "EXAMPLE.com:8080/tally", Some("example.com/tally"));
        check(&["/a/:x", "/:y/b"], "/a/b", Some("/a/:x"));
        check(&["/a"], "/b", None);
    }

    #[test]
    fn captures_what_was_left_open() {
        let table = table(&["/users/:id/...", "/users/:id"]);
        let (_, _, captures) = table.find("", "/users/7/a/b").unwrap();
        assert_eq!(captures, Captures { parameters: vec![("id", "7")], trailing: Some("/a/b") });
        assert_eq!(table.find("", "/users/7").unwrap().2.trailing, None);
    }

    #[test]
    fn clashing_routes_are_named() {
        let routes = ["/users/:id", "/users/:name"].map(|r| (r.parse::<Route>().unwrap(), ()));
        let (first, second) = RouteTable::new(routes).unwrap_err();
        assert_eq!((first.to_string().as_str(), second.to_string().as_str()), ("/users/:id", "/users/:name"));
    }

    #[test]
    fn malformed_routes_say_why() {
        for bad in ["", "tally", "/a//b", "/.../a", "/a/:", "/a/../b", "/a?x", "/*", "ho st/a", "host:80/a", "/:a/:a"] {
            assert!(bad.parse::<Route>().is_err(), "{bad}");
        }
    }

    /// `Less` when `one` is to be tried before `other`.
    fn order(one: &Route, other: &Route) -> Ordering {
        fn rank(route: &Route, at: usize) -> u8 {
            match route.segments.get(at) {
                Some(Segment::Literal(_)) => 0,
                Some(Segment::Parameter(_)) => 1,
                None if route.subtree => 3,
                None => 2,
            }
        }
        one.host.is_none().cmp(&other.host.is_none()).then_with(|| {
            (0..=one.segments.len().max(other.segments.len()))
                .map(|at| rank(one, at).cmp(&rank(other, at)))
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal)
        })
    }

    fn route() -> impl Strategy<Value = Route> {
        (proptest::option::of("[a-c]{1,2}"), proptest::collection::vec("(:?[a-c])", 0..4), any::<bool>())
            .prop_filter_map("a valid route", |(host, segments, subtree)| {
                let path =
                    segments.iter().map(|s| format!("/{s}")).collect::<String>() + if subtree { "/..." } else { "" };
                format!("{}{}", host.unwrap_or_default(), if path.is_empty() { "/" } else { &path }).parse().ok()
            })
    }

    proptest! {
        #[test]
        fn prints_what_it_reads(route in route()) {
            prop_assert_eq!(route.to_string().parse::<Route>().unwrap(), route);
        }

        #[test]
        fn the_order_of_registration_does_not_matter(routes in proptest::collection::vec(route(), 0..6), path in "(/[a-c]{0,1}){1,4}", host in "[a-c]{1,2}") {
            let forward = RouteTable::new(routes.iter().cloned().map(|r| (r.clone(), r)));
            let backward = RouteTable::new(routes.iter().rev().cloned().map(|r| (r.clone(), r)));
            prop_assert_eq!(forward.is_ok(), backward.is_ok());
            let clash = |at: usize| routes[..at].iter().any(|other| other.clashes_with(&routes[at]));
            prop_assert_eq!(forward.is_ok(), !(0..routes.len()).any(clash));
            if let (Ok(forward), Ok(backward)) = (forward, backward) {
                let found = forward.find(&host, &path).map(|found| found.1);
                prop_assert_eq!(found, backward.find(&host, &path).map(|found| found.1));
                // Which is the first of all that match, in the order in which they are to be tried.
                let mut matching: Vec<&Route> = routes.iter().filter(|route| route.matches(&host, &path).is_some()).collect();
                matching.sort_by(|one, other| order(one, other));
                prop_assert_eq!(found, matching.first().copied());
            }
        }

        #[test]
        fn routes_of_one_shape_clash_and_no_others(one in route(), other in route()) {
            prop_assert_eq!(one.shape() == other.shape(), one.clashes_with(&other));
        }
    }
}
