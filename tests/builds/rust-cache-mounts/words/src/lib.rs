/// A greeting for whoever has this name.
pub fn greeting(name: &str) -> String {
    format!("Hello, {name}, from version {}", env!("CARGO_PKG_VERSION"))
}
