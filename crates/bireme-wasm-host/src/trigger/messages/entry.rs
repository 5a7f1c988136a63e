//! Entries of a stream, as the server tells of them. Pure.

use redis::Value;

/// Most bytes of the ID of an entry: two numbers of 64 bits.
const MOST_OF_ID: usize = 41;

/// One entry of a stream.
pub(super) struct Entry {
    /// Two numbers, such as `1526919030474-55`.
    pub(super) id: String,
    /// Names and values, in the entry's order.
    fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The entries of an answer to `XREADGROUP` about one stream; none where it is empty. `None` for what is no such answer.
pub(super) fn read_reply(reply: Value) -> Option<Vec<Entry>> {
    let streams = match reply {
        Value::Nil => return Some(Vec::new()),
        // The third version of the protocol has a map.
        Value::Map(streams) => streams.into_iter().map(|(_, entries)| entries).collect(),
        Value::Array(streams) => streams.into_iter().map(second).collect::<Option<Vec<Value>>>()?,
        _ => return None,
    };
    let entries: Vec<Vec<Entry>> = streams.into_iter().map(entries_of).collect::<Option<_>>()?;
    Some(entries.into_iter().flatten().collect())
}

fn second(pair: Value) -> Option<Value> {
    let Value::Array(pair) = pair else { return None };
    let [_, second] = <[Value; 2]>::try_from(pair).ok()?;
    Some(second)
}

/// A list of entries. Those that were removed from the stream are left out.
pub(super) fn entries_of(reply: Value) -> Option<Vec<Entry>> {
    let Value::Array(entries) = reply else { return None };
    entries.into_iter().filter(|entry| *entry != Value::Nil).map(Entry::read).collect()
}

impl Entry {
    fn read(entry: Value) -> Option<Self> {
        let Value::Array(parts) = entry else { return None };
        let [id, fields] = <[Value; 2]>::try_from(parts).ok()?;
        let Value::BulkString(id) = id else { return None };
        let sound = id.len() <= MOST_OF_ID && id.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-');
        let id = String::from_utf8(id).ok().filter(|_| sound)?;
        let fields = match fields {
            // Removed from the stream while it was pending.
            Value::Nil => Vec::new(),
            Value::Array(fields) => pairs(fields)?,
            _ => return None,
        };
        Some(Self { id, fields })
    }

    /// Bytes of all names and values.
    pub(super) fn size(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// What the handler is given: the value of the field `payload`, or of the only field; otherwise all fields as a JSON
    /// object, in which what is not UTF-8 has the replacement character.
    pub(super) fn payload(self) -> Vec<u8> {
        let mut fields = self.fields;
        if let Some(at) = fields.iter().position(|(name, _)| name == b"payload") {
            return fields.swap_remove(at).1;
        }
        if fields.len() == 1 {
            return fields.swap_remove(0).1;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields: serde_json::Map<_, _> =
            fields.iter().map(|(name, value)| (text(name), serde_json::Value::from(text(value)))).collect();
        serde_json::Value::from(fields).to_string().into_bytes()
    }
}

fn pairs(fields: Vec<Value>) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut fields = fields.into_iter();
    let mut pairs = Vec::with_capacity(fields.len() / 2);
    while let Some(name) = fields.next() {
        let (Value::BulkString(name), Some(Value::BulkString(value))) = (name, fields.next()) else { return None };
        pairs.push((name, value));
    }
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &[u8]) -> Value {
        Value::BulkString(text.to_vec())
    }

    fn entry(id: &str, fields: &[&[u8]]) -> Value {
        Value::Array(vec![text(id.as_bytes()), Value::Array(fields.iter().map(|field| text(field)).collect())])
    }

    #[test]
    fn an_entry_is_its_payload_its_only_field_or_all_of_them() {
        let payload = |fields: &[&[u8]]| {
            let read = entries_of(Value::Array(vec![entry("1-0", fields)])).unwrap();
            String::from_utf8_lossy(&read.into_iter().next().unwrap().payload()).into_owned()
        };
        assert_eq!(payload(&[b"id", b"1", b"payload", b"p"]), "p");
        assert_eq!(payload(&[b"anything", b"a"]), "a");
        assert_eq!(payload(&[b"b", b"\"2\"", b"a", b"1"]), r#"{"a":"1","b":"\"2\""}"#);
        assert_eq!(payload(&[b"\xff", b"1", b"a", b"2"]), "{\"a\":\"2\",\"\u{fffd}\":\"1\"}");
        assert_eq!(payload(&[]), "{}");
    }

    #[test]
    fn answers_are_read_in_both_versions_and_nonsense_is_none() {
        let entries = || Value::Array(vec![entry("1-0", &[b"a", b"1"]), Value::Nil, entry("2-0", &[])]);
        let second = Value::Array(vec![Value::Array(vec![text(b"orders"), entries()])]);
        let third = Value::Map(vec![(text(b"orders"), entries())]);
        for reply in [second, third] {
            let ids: Vec<String> = read_reply(reply).unwrap().into_iter().map(|entry| entry.id).collect();
            assert_eq!(ids, ["1-0", "2-0"]);
        }
        assert!(read_reply(Value::Nil).unwrap().is_empty());
        for nonsense in [
            Value::Int(1),
            Value::Array(vec![text(b"orders")]),
            Value::Array(vec![Value::Array(vec![text(b"orders"), Value::Array(vec![entry("1-0\nforged", &[])])])]),
            Value::Array(vec![Value::Array(vec![text(b"orders"), Value::Array(vec![entry("1-0", &[b"odd"])])])]),
            Value::Array(vec![Value::Array(vec![text(b"orders"), Value::Array(vec![entry(&"1".repeat(42), &[])])])]),
        ] {
            assert!(read_reply(nonsense).is_none());
        }
    }
}
