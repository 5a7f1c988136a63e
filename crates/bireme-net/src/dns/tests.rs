use bireme_core::SandboxId;

use super::message::is_small;
use super::room::{FEW, Place, UPSTREAM_AT_ONCE};
use super::upstream::name_servers;
use super::*;
use crate::NetworkId;

#[test]
fn resolv_conf_is_read_as_the_manual_says() {
    let servers = name_servers("# x\nsearch a b\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\n nameserver ::1\n");
    assert_eq!(servers, vec!["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
    assert_eq!(name_servers(""), vec!["127.0.0.1:53".parse().unwrap()]);
}

fn room() -> (Arc<Room>, [NetworkId; 2]) {
    let network = |digit: &str| NetworkId::parse(&digit.repeat(64)).unwrap();
    (Room::new(UPSTREAM_AT_ONCE), [network("1"), network("2")])
}

/// As many places as are to be had.
fn greedy(room: &Arc<Room>, name: &str, network: Option<&NetworkId>) -> Vec<Place> {
    let of = SandboxId::parse(name).unwrap();
    std::iter::from_fn(|| room.place(&of, network)).collect()
}

#[test]
fn however_many_ask_much_others_find_places() {
    let (room, [near, far]) = room();
    let held: Vec<_> = (0..60).map(|number| greedy(&room, &format!("greedy{number}"), Some(&near))).collect();
    assert_eq!(held[0].len(), UPSTREAM_AT_ONCE.each, "one alone has many");
    let all: usize = held.iter().map(Vec::len).sum();
    assert!(all <= UPSTREAM_AT_ONCE.all / 2, "one network has no more than half: {all}");
    assert!(greedy(&room, "neighbour", Some(&near)).len() >= FEW, "few are left on their own network");
    assert!(greedy(&room, "modest", Some(&far)).len() > FEW, "and many on another");
    drop(held);
    assert!(greedy(&room, "greedy0", Some(&near)).len() == UPSTREAM_AT_ONCE.each, "what is given back is there");
    let taken = room.taken.lock();
    assert_eq!((taken.all, taken.askers.len(), taken.networks.len()), (0, 0, 0), "and nobody is remembered");
}

#[test]
fn a_message_that_takes_long_to_read_is_none() {
    let message = |counts: [u16; 4], length: usize| {
        let mut bytes = vec![0; length.max(12)];
        for (at, count) in counts.into_iter().enumerate() {
            bytes[4 + 2 * at..6 + 2 * at].copy_from_slice(&count.to_be_bytes());
        }
        bytes
    };
    assert!(is_small(&message([1, 0, 0, 1], 60)) && is_small(&message([1, 0, 0, 0], 4096)));
    assert!(!is_small(&message([10_000, 0, 0, 0], 4000)) && !is_small(&message([1, 0, 0, 9], 60)));
    assert!(!is_small(&message([1, 0, 0, 0], 4097)) && !is_small(&[0; 11]));
}

#[test]
fn a_gateway_is_not_filled_by_those_who_ask_much() {
    let room = Room::new(AT_ONCE);
    let _held: Vec<_> = (0..20).map(|number| greedy(&room, &format!("greedy{number}"), None)).collect();
    assert_eq!(greedy(&room, "modest", None).len(), FEW);
}

/// However many gateways and sandboxes there are to ask at.
#[test]
fn connections_of_all_gateways_together_leave_descriptors() {
    let service = Service::new(None, 256);
    let (all, of) = (32, |number: usize| format!("greedy{number}"));
    let held: Vec<_> = (0..100).flat_map(|number| greedy(&service.connections, &of(number), None)).collect();
    assert!(held.len() <= all && service.upstream.room.limits.all == all, "{}", held.len());
    assert_eq!(greedy(&service.connections, "modest", None).len().min(1), usize::from(held.len() < all));
}

#[tokio::test]
async fn a_question_waits_for_a_place() {
    let (room, _) = room();
    let mut held = greedy(&room, "one", None);
    let of = SandboxId::parse("one").unwrap();
    let (place, ()) = tokio::join!(room.wait_for_place(&of, None), async { drop(held.pop()) });
    assert!(place.is_some());
}
