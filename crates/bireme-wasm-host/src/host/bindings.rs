//! Generated from `wit/`: the traits that the other modules here implement.

/// Interfaces whose calls occupy the instance until they return (WASI 0.2 style).
pub(crate) mod sync {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "bireme:host/imports",
        imports: { default: async },
        require_store_data_send: true,
        with: {
            "fermyon:spin/key-value.store": crate::host::store::Store,
            "fermyon:spin/mqtt.connection": crate::host::mqtt::Connection,
            "fermyon:spin/mysql.connection": crate::host::mysql::Connection,
            "fermyon:spin/postgres.connection": crate::host::postgres::Connection,
            "fermyon:spin/redis.connection": crate::host::redis::connection::Connection,
            "fermyon:spin/sqlite.connection": crate::host::sqlite::Database,
            "spin:postgres/postgres.connection": crate::host::postgres::Connection,
            "wasi:keyvalue/store.bucket": crate::host::store::Store,
            "wasi:keyvalue/atomics.cas": crate::host::cas::Cas,
        },
    });
}

/// The same interfaces under the versions that wasmtime's own crates speak.
pub(crate) mod draft {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "bireme:host/imports-draft",
        imports: { default: async },
        require_store_data_send: true,
        with: { "wasi:keyvalue/store.bucket": crate::host::store::Store },
    });
}

/// Interfaces whose calls run beside the instance (WASI 0.3 style).
pub(crate) mod concurrent {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "bireme:host/imports-async",
        imports: {
            "spin:key-value/key-value.[method]store.get-keys": async | store | trappable,
            "spin:mysql/mysql.[method]connection.query": async | store | trappable,
            "spin:postgres/postgres.[constructor]connection-builder": trappable,
            "spin:postgres/postgres.[method]connection-builder.build": async,
            "spin:postgres/postgres.[static]connection.open": async,
            "spin:postgres/postgres.[method]connection.query": async,
            "spin:postgres/postgres.[method]connection.query-async": async | store | trappable,
            "spin:postgres/postgres.[method]connection.execute": async,
            "spin:sqlite/sqlite.[method]connection.execute-async": async | store | trappable,
            "spin:sqlite/sqlite.[static]connection.open": async,
            "spin:sqlite/sqlite.[method]connection.execute": async,
            "spin:sqlite/sqlite.[method]connection.last-insert-rowid": async,
            "spin:sqlite/sqlite.[method]connection.changes": async,
        },
        require_store_data_send: true,
        with: {
            "spin:key-value/key-value.store": crate::host::store::Store,
            "spin:mqtt/mqtt.connection": crate::host::mqtt::Connection,
            "spin:mysql/mysql.connection": crate::host::mysql::Connection,
            "spin:postgres/postgres.connection": crate::host::postgres::Connection,
            "spin:postgres/postgres.connection-builder": crate::host::postgres::Builder,
            "spin:redis/redis.connection": crate::host::redis::connection::Connection,
            "spin:sqlite/sqlite.connection": crate::host::sqlite::Database,
        },
    });
}

/// The export that a message handler of Spin 2 and 3 has.
pub(crate) mod redis_trigger {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "bireme:host/redis-trigger",
        exports: { default: async },
        require_store_data_send: true,
    });
}

/// The export that a message handler of `spin-sdk` 7 has.
pub(crate) mod redis_trigger_async {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "bireme:host/redis-trigger-async",
        exports: { default: async | store },
        require_store_data_send: true,
    });
}

/// Name lookup of WASI 0.2; its other types are those of the WASI crates.
pub(crate) mod lookup {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "bireme:host/lookup",
        imports: { "wasi:sockets/ip-name-lookup.[method]resolve-address-stream.subscribe": trappable },
        require_store_data_send: true,
        with: {
            "wasi:io": wasmtime_wasi::p2::bindings::io,
            "wasi:sockets/network": wasmtime_wasi::p2::bindings::sockets::network,
            "wasi:sockets/ip-name-lookup.resolve-address-stream": crate::host::lookup::Lookup,
        },
    });
}
