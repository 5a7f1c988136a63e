//! Handles messages as a module of Spin before components: keeps the last one at the server that `REDIS` names.

use guests_spin1::{Redis, message, outcome};

#[unsafe(export_name = "handle-redis-message")]
extern "C" fn handle(at: u32, length: u32) -> *const u8 {
    let text = String::from_utf8_lossy(&unsafe { message(at, length) }).into_owned();
    println!("message: {text}");
    if text == "crash" {
        panic!("as it was asked to");
    }
    let kept = std::env::var("REDIS").map(|url| Redis(&url).set("inbound1:last", &text));
    outcome(text == "fail" || !matches!(kept, Ok(Ok(()))))
}
