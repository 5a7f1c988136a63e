//! The canonical ABI of wit-bindgen 0.2, from the guest's side, and the interfaces of Spin that use it.

use std::alloc::{Layout, alloc, handle_alloc_error, realloc};

/// A place for results: large enough for each of them.
#[repr(C, align(8))]
struct Place([u8; 64]);

impl Place {
    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    /// The bytes whose place and length stand at `at`, which are this module's.
    fn bytes(&self, at: usize) -> Vec<u8> {
        unsafe { taken(self.u32(at), self.u32(at + 4)) }
    }

    fn text(&self, at: usize) -> String {
        String::from_utf8(self.bytes(at)).unwrap()
    }

    fn texts(&self, at: usize) -> Vec<String> {
        let list = unsafe { elements(self.u32(at), self.u32(at + 4), 8) };
        list.iter().map(|element| String::from_utf8(slice_at(element, 0)).unwrap()).collect()
    }
}

/// # Safety
/// What is there was given by [`canonical_abi_realloc`].
unsafe fn taken(at: u32, length: u32) -> Vec<u8> {
    unsafe { std::slice::from_raw_parts(at as *const u8, length as usize).to_vec() }
}

unsafe fn elements(at: u32, count: u32, size: usize) -> Vec<Vec<u8>> {
    (0..count as usize).map(|number| unsafe { taken(at + (number * size) as u32, size as u32) }).collect()
}

fn slice_at(element: &[u8], at: usize) -> Vec<u8> {
    let word = |at: usize| u32::from_le_bytes(element[at..at + 4].try_into().unwrap());
    unsafe { taken(word(at), word(at + 4)) }
}

#[unsafe(no_mangle)]
extern "C" fn canonical_abi_realloc(old: *mut u8, before: usize, align: usize, after: usize) -> *mut u8 {
    if after == 0 {
        return align as *mut u8;
    }
    let layout = Layout::from_size_align(after, align).unwrap();
    let given = if before == 0 {
        unsafe { alloc(layout) }
    } else {
        unsafe { realloc(old, Layout::from_size_align_unchecked(before, align), after) }
    };
    if given.is_null() { handle_alloc_error(layout) } else { given }
}

#[unsafe(no_mangle)]
extern "C" fn canonical_abi_free(_: *mut u8, _: usize, _: usize) {}

type Address = *const u8;

#[link(wasm_import_module = "outbound-redis")]
unsafe extern "C" {
    #[link_name = "publish"]
    fn redis_publish(_: Address, _: usize, _: Address, _: usize, _: Address, _: usize, _: *mut Place);
    #[link_name = "get"]
    fn redis_get(_: Address, _: usize, _: Address, _: usize, _: *mut Place);
    #[link_name = "set"]
    fn redis_set(_: Address, _: usize, _: Address, _: usize, _: Address, _: usize, _: *mut Place);
    #[link_name = "incr"]
    fn redis_incr(_: Address, _: usize, _: Address, _: usize, _: *mut Place);
    #[link_name = "del"]
    fn redis_del(_: Address, _: usize, _: Address, _: usize, _: *mut Place);
    #[link_name = "sadd"]
    fn redis_sadd(_: Address, _: usize, _: Address, _: usize, _: Address, _: usize, _: *mut Place);
    #[link_name = "srem"]
    fn redis_srem(_: Address, _: usize, _: Address, _: usize, _: Address, _: usize, _: *mut Place);
    #[link_name = "smembers"]
    fn redis_smembers(_: Address, _: usize, _: Address, _: usize, _: *mut Place);
    #[link_name = "execute"]
    fn redis_execute(_: Address, _: usize, _: Address, _: usize, _: Address, _: usize, _: *mut Place);
}

#[link(wasm_import_module = "wasi-outbound-http")]
unsafe extern "C" {
    #[link_name = "request"]
    fn http_request(
        method: u32,
        uri: Address,
        length: usize,
        headers: Address,
        count: usize,
        params: Address,
        none: usize,
        has_body: u32,
        body: Address,
        size: usize,
        out: *mut Place,
    );
}

#[link(wasm_import_module = "spin-config")]
unsafe extern "C" {
    #[link_name = "get-config"]
    fn config_get(_: Address, _: usize, _: *mut Place);
}

#[link(wasm_import_module = "key-value")]
unsafe extern "C" {
    #[link_name = "open"]
    fn kv_open(_: Address, _: usize, _: *mut Place);
    #[link_name = "get"]
    fn kv_get(_: u32, _: Address, _: usize, _: *mut Place);
    #[link_name = "set"]
    fn kv_set(_: u32, _: Address, _: usize, _: Address, _: usize, _: *mut Place);
    #[link_name = "delete"]
    fn kv_delete(_: u32, _: Address, _: usize, _: *mut Place);
    #[link_name = "exists"]
    fn kv_exists(_: u32, _: Address, _: usize, _: *mut Place);
    #[link_name = "get-keys"]
    fn kv_keys(_: u32, _: *mut Place);
    #[link_name = "close"]
    fn kv_close(_: u32);
}

fn call(with: impl FnOnce(*mut Place)) -> Place {
    let mut place = Place([0xee; 64]);
    with(&mut place);
    place
}

/// The interface says only that it went wrong, where the answer would stand.
fn checked(place: Place, at: usize) -> Result<Place, String> {
    match place.0[0] {
        0 => Ok(place),
        _ => Err(format!("error {}", place.0[at])),
    }
}

/// A variant with a string.
fn explained(place: Place) -> Result<Place, String> {
    match place.0[0] {
        0 => Ok(place),
        _ => Err(format!("error {}: {}", place.0[4], place.text(8))),
    }
}

/// Places and lengths of strings, as a list.
fn lowered(texts: &[&str]) -> Vec<[usize; 2]> {
    texts.iter().map(|text| [text.as_ptr() as usize, text.len()]).collect()
}

/// An answer of `execute`.
#[derive(Debug)]
pub enum Value {
    /// Nothing.
    Nil,
    /// A line.
    Status(String),
    /// A number.
    Number(i64),
    /// Bytes, which are text here.
    Bytes(String),
}

/// A server, named by each call.
pub struct Redis<'a>(pub &'a str);

impl Redis<'_> {
    pub fn publish(&self, channel: &str, payload: &[u8]) -> Result<(), String> {
        let (to, data) = (channel.as_bytes(), payload);
        let done = call(|out| unsafe {
            redis_publish(self.0.as_ptr(), self.0.len(), to.as_ptr(), to.len(), data.as_ptr(), data.len(), out)
        });
        checked(done, 1).map(drop)
    }

    pub fn get(&self, key: &str) -> Result<String, String> {
        let got = call(|out| unsafe { redis_get(self.0.as_ptr(), self.0.len(), key.as_ptr(), key.len(), out) });
        Ok(checked(got, 4)?.text(4))
    }

    pub fn set(&self, key: &str, value: &str) -> Result<(), String> {
        let done = call(|out| unsafe {
            redis_set(self.0.as_ptr(), self.0.len(), key.as_ptr(), key.len(), value.as_ptr(), value.len(), out)
        });
        checked(done, 1).map(drop)
    }

    pub fn incr(&self, key: &str) -> Result<i64, String> {
        let done = call(|out| unsafe { redis_incr(self.0.as_ptr(), self.0.len(), key.as_ptr(), key.len(), out) });
        Ok(checked(done, 8)?.u64(8) as i64)
    }

    pub fn del(&self, keys: &[&str]) -> Result<i64, String> {
        let list = lowered(keys);
        let done = call(|out| unsafe {
            redis_del(self.0.as_ptr(), self.0.len(), list.as_ptr().cast(), list.len(), out)
        });
        Ok(checked(done, 8)?.u64(8) as i64)
    }

    pub fn sadd(&self, key: &str, values: &[&str]) -> Result<i64, String> {
        let list = lowered(values);
        let done = call(|out| unsafe {
            let (at, count) = (list.as_ptr().cast(), list.len());
            redis_sadd(self.0.as_ptr(), self.0.len(), key.as_ptr(), key.len(), at, count, out)
        });
        Ok(checked(done, 8)?.u64(8) as i64)
    }

    pub fn srem(&self, key: &str, values: &[&str]) -> Result<i64, String> {
        let list = lowered(values);
        let done = call(|out| unsafe {
            let (at, count) = (list.as_ptr().cast(), list.len());
            redis_srem(self.0.as_ptr(), self.0.len(), key.as_ptr(), key.len(), at, count, out)
        });
        Ok(checked(done, 8)?.u64(8) as i64)
    }

    pub fn smembers(&self, key: &str) -> Result<Vec<String>, String> {
        let got = call(|out| unsafe { redis_smembers(self.0.as_ptr(), self.0.len(), key.as_ptr(), key.len(), out) });
        Ok(checked(got, 4)?.texts(4))
    }

    /// Arguments that are numbers are sent as numbers.
    pub fn execute(&self, command: &str, arguments: &[&str]) -> Result<Vec<Value>, String> {
        let mut list: Vec<u8> = Vec::new();
        for argument in arguments {
            match argument.parse::<i64>() {
                Ok(number) => {
                    list.extend(0u64.to_le_bytes());
                    list.extend(number.to_le_bytes());
                }
                Err(_) => {
                    list.extend(1u64.to_le_bytes());
                    list.extend((argument.as_ptr() as u32).to_le_bytes());
                    list.extend((argument.len() as u32).to_le_bytes());
                }
            }
        }
        // Its elements have numbers of eight bytes.
        let aligned: Vec<u64> =
            list.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
        let done = call(|out| unsafe {
            let (at, count) = (aligned.as_ptr().cast(), arguments.len());
            redis_execute(self.0.as_ptr(), self.0.len(), command.as_ptr(), command.len(), at, count, out)
        });
        let done = checked(done, 4)?;
        let values = unsafe { elements(done.u32(4), done.u32(8), 16) };
        let text = |element: &[u8]| String::from_utf8(slice_at(element, 8)).unwrap();
        Ok(values
            .iter()
            .map(|element| match element[0] {
                0 => Value::Nil,
                1 => Value::Status(text(element)),
                2 => Value::Number(i64::from_le_bytes(element[8..].try_into().unwrap())),
                _ => Value::Bytes(text(element)),
            })
            .collect())
    }
}

/// Sends a request; answers with status, headers and body.
pub fn send(
    method: u32,
    uri: &str,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> Result<(u16, Vec<(String, String)>, String), String> {
    let pairs: Vec<[usize; 4]> = headers
        .iter()
        .map(|(name, value)| [name.as_ptr() as usize, name.len(), value.as_ptr() as usize, value.len()])
        .collect();
    let content = body.unwrap_or_default();
    let (has, at, size) = (u32::from(body.is_some()), content.as_ptr(), content.len());
    let done = call(|out| unsafe {
        let list = pairs.as_ptr().cast();
        http_request(method, uri.as_ptr(), uri.len(), list, pairs.len(), std::ptr::null(), 0, has, at, size, out)
    });
    if done.0[0] != 0 {
        return Err(format!("error {}", done.0[4]));
    }
    let status = u16::from_le_bytes([done.0[4], done.0[5]]);
    let pairs = if done.0[8] == 0 { Vec::new() } else { unsafe { elements(done.u32(12), done.u32(16), 16) } };
    let text = |element: &[u8], at| String::from_utf8(slice_at(element, at)).unwrap();
    let headers = pairs.iter().map(|pair| (text(pair, 0), text(pair, 8))).collect();
    let body = if done.0[20] == 0 { String::new() } else { done.text(24) };
    Ok((status, headers, body))
}

/// A variable of the app.
pub fn config(key: &str) -> Result<String, String> {
    explained(call(|out| unsafe { config_get(key.as_ptr(), key.len(), out) })).map(|got| got.text(4))
}

/// A key-value store; closed when it is dropped.
pub struct Store(pub u32);

impl Store {
    pub fn open(name: &str) -> Result<Self, String> {
        explained(call(|out| unsafe { kv_open(name.as_ptr(), name.len(), out) })).map(|got| Self(got.u32(4)))
    }

    pub fn get(&self, key: &str) -> Result<String, String> {
        explained(call(|out| unsafe { kv_get(self.0, key.as_ptr(), key.len(), out) })).map(|got| got.text(4))
    }

    pub fn set(&self, key: &str, value: &str) -> Result<(), String> {
        let (at, size) = (value.as_ptr(), value.len());
        explained(call(|out| unsafe { kv_set(self.0, key.as_ptr(), key.len(), at, size, out) })).map(drop)
    }

    pub fn delete(&self, key: &str) -> Result<(), String> {
        explained(call(|out| unsafe { kv_delete(self.0, key.as_ptr(), key.len(), out) })).map(drop)
    }

    pub fn exists(&self, key: &str) -> Result<bool, String> {
        explained(call(|out| unsafe { kv_exists(self.0, key.as_ptr(), key.len(), out) })).map(|got| got.0[4] != 0)
    }

    pub fn keys(&self) -> Result<Vec<String>, String> {
        explained(call(|out| unsafe { kv_keys(self.0, out) })).map(|got| got.texts(4))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        unsafe { kv_close(self.0) }
    }
}

/// A request as the handler has it.
pub struct Request {
    pub method: u32,
    pub uri: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// From the ten numbers of `handle-http-request`.
    ///
    /// # Safety
    /// They are those that the host called with.
    pub unsafe fn raised(numbers: [u32; 10]) -> Self {
        let [method, uri, length, headers, count, _, _, has_body, body, size] = numbers;
        let text = |element: &[u8], at| String::from_utf8(slice_at(element, at)).unwrap();
        let pairs = unsafe { elements(headers, count, 16) };
        Self {
            method,
            uri: String::from_utf8(unsafe { taken(uri, length) }).unwrap(),
            headers: pairs.iter().map(|pair| (text(pair, 0), text(pair, 8))).collect(),
            body: if has_body == 0 { Vec::new() } else { unsafe { taken(body, size) } },
        }
    }
}

/// An answer, as it is left in memory for the host.
pub fn answer(status: u16, headers: &[(&str, &str)], body: Option<Vec<u8>>) -> *const u8 {
    let pairs: Vec<[usize; 4]> = headers
        .iter()
        .map(|(name, value)| {
            let (name, value) = ((*name).to_owned().leak(), (*value).to_owned().leak());
            [name.as_ptr() as usize, name.len(), value.as_ptr() as usize, value.len()]
        })
        .collect();
    let pairs = pairs.leak();
    let mut place = Box::new(Place([0; 64]));
    let mut put = |at: usize, word: usize| place.0[at..at + 4].copy_from_slice(&(word as u32).to_le_bytes());
    put(0, status as usize);
    if !headers.is_empty() {
        put(4, 1);
        put(8, pairs.as_ptr() as usize);
        put(12, pairs.len());
    }
    if let Some(body) = body {
        let body = body.leak();
        put(16, 1);
        put(20, body.as_ptr() as usize);
        put(24, body.len());
    }
    Box::leak(place).0.as_ptr()
}

/// The message of `handle-redis-message`.
///
/// # Safety
/// The numbers are those that the host called with.
pub unsafe fn message(at: u32, length: u32) -> Vec<u8> {
    unsafe { taken(at, length) }
}

/// What `handle-redis-message` answers.
pub fn outcome(is_error: bool) -> *const u8 {
    Box::leak(Box::new([u8::from(is_error), u8::from(is_error)])).as_ptr()
}
