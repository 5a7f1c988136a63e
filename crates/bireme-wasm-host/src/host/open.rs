//! What opens files and sockets for guests: counted against the descriptors of this process.
//!
//! The interfaces of the WASI crates are used as they are; what opens a descriptor is put behind a function of ours that
//! takes a [`Place`] first and answers with the interface's own error where there is none. What a place is tied to is what
//! keeps the descriptor open, and not the guest's handle, which may be gone long before:
//!
//! - a socket keeps the check of its addresses, and that keeps the place; a stream of WASI 0.3 from or to it keeps the
//!   place until its future tells that it has ended;
//! - a file or folder is shared by everything that reads from it or writes to it: its place is given back when none of
//!   these is left, which is looked at whenever the guest opens or closes another;
//! - a core module has no streams: the files in its table are counted.
//!
//! Sockets are not accepted: no component may listen on one.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use wasmtime::component::{
    Access, Accessor, ComponentType, FutureConsumer, FutureReader, Lift, Linker, Lower, Resource, ResourceTable,
    ResourceType, Source, StreamReader,
};
use wasmtime::{AsContextMut as _, Caller, Extern, StoreContextMut};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p1::wasi_snapshot_preview1;
use wasmtime_wasi::p2::bindings::filesystem::types as files2;
use wasmtime_wasi::p2::bindings::sockets as sockets2;
use wasmtime_wasi::p3::bindings::filesystem::types as files3;
use wasmtime_wasi::p3::bindings::sockets::types as sockets3;
use wasmtime_wasi::sockets::{TcpSocket, UdpSocket, WasiSockets, WasiSocketsView as _};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::guest::Guest;
use crate::stock::Place;

/// Places that a core module takes at a time, so that its table is not counted for each.
const MODULE_TAKES: usize = 16;

/// A place for a file that is to be opened.
fn place_for_file(guest: &mut Guest) -> Option<Place> {
    guest.open.look();
    if let Some(place) = guest.account.descriptor() {
        return Some(place);
    }
    guest.open.look_now();
    guest.account.descriptor()
}

/// Ties `place` to the file that was opened.
fn keep(guest: &mut Guest, opened: &Resource<Descriptor>, place: Place) -> wasmtime::Result<()> {
    let file = match guest.table.get(opened)? {
        Descriptor::File(file) => Arc::downgrade(&file.file),
        Descriptor::Dir(folder) => Arc::downgrade(&folder.dir),
    };
    guest.open.files.push((file, place));
    Ok(())
}

/// A descriptor was dropped by the guest.
fn dropped(guest: &mut Guest, descriptor: u32) -> wasmtime::Result<()> {
    guest.table.delete(Resource::<Descriptor>::new_own(descriptor))?;
    guest.open.look();
    Ok(())
}

/// The context of a socket that is to be made.
struct ForSocket<'a> {
    ctx: WasiCtx,
    table: &'a mut ResourceTable,
}

impl<'a> ForSocket<'a> {
    /// `with` is kept until the socket is closed.
    fn new<T: Send + Sync + 'static>(guest: &'a mut Guest, with: T) -> Self {
        let mut builder = WasiCtxBuilder::new();
        super::permit::permit(&mut builder, &guest.component, with);
        Self { ctx: builder.build(), table: &mut guest.table }
    }
}

impl WasiView for ForSocket<'_> {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.ctx, table: self.table }
    }
}

/// An answer of a host function: an error of the interface, or a trap.
fn answer<T, E>(result: Result<T, wasmtime_wasi::TrappableError<E>>) -> wasmtime::Result<(Result<T, E>,)>
where
    E: std::error::Error + Send + Sync + 'static,
{
    Ok((match result {
        Ok(value) => Ok(value),
        Err(error) => Err(error.downcast()?),
    },))
}

/// Keeps places until a future of the WASI crates is resolved, which is when its stream lets go of the descriptor, and
/// passes on what it is resolved to.
struct Until<E> {
    told: Option<oneshot::Sender<Result<(), E>>>,
    places: Vec<Arc<Place>>,
}

impl<E: Lift + Send + Sync + 'static> FutureConsumer<Guest> for Until<E> {
    type Item = Result<(), E>;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        store: StoreContextMut<'_, Guest>,
        mut source: Source<'_, Self::Item>,
        _finish: bool,
    ) -> Poll<wasmtime::Result<()>> {
        let mut taken = None;
        source.read(store, &mut taken)?;
        self.places.clear();
        if let (Some(told), Some(result)) = (self.told.take(), taken) {
            // Nobody asks where the guest dropped it.
            let _ = told.send(result);
        }
        Poll::Ready(Ok(()))
    }
}

/// A future that resolves as `ended` does; until then `places` are kept.
fn until<E>(
    store: &mut StoreContextMut<'_, Guest>,
    ended: FutureReader<Result<(), E>>,
    places: Vec<Arc<Place>>,
) -> wasmtime::Result<FutureReader<Result<(), E>>>
where
    E: ComponentType + Lift + Lower + Send + Sync + 'static,
{
    let (told, result) = oneshot::channel();
    ended.pipe(store.as_context_mut(), Until { told: Some(told), places })?;
    FutureReader::new(store.as_context_mut(), result)
}

/// Puts our functions in the place of those of the WASI crates that open descriptors, or keep them.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>, concurrent: bool) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    add_p2(linker)?;
    if concurrent {
        add_p3(linker)?;
    }
    linker.allow_shadowing(false);
    Ok(())
}

fn add_p2(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    use sockets2::network::{ErrorCode, IpAddressFamily};
    use sockets2::tcp_create_socket::Host as _;
    use sockets2::udp_create_socket::Host as _;
    linker.instance("wasi:sockets/tcp-create-socket@0.2.12")?.func_wrap(
        "create-tcp-socket",
        |mut store: StoreContextMut<'_, Guest>, (family,): (IpAddressFamily,)| {
            let guest = store.data_mut();
            let Some(place) = guest.account.descriptor() else { return Ok((Err(ErrorCode::NewSocketLimit),)) };
            answer(ForSocket::new(guest, place).sockets().create_tcp_socket(family))
        },
    )?;
    linker.instance("wasi:sockets/udp-create-socket@0.2.12")?.func_wrap_async(
        "create-udp-socket",
        |mut store: StoreContextMut<'_, Guest>, (family,): (IpAddressFamily,)| {
            Box::new(async move {
                let guest = store.data_mut();
                let Some(place) = guest.account.descriptor() else { return Ok((Err(ErrorCode::NewSocketLimit),)) };
                answer(ForSocket::new(guest, place).sockets().create_udp_socket(family).await)
            })
        },
    )?;
    let mut files = linker.instance("wasi:filesystem/types@0.2.12")?;
    files.resource("descriptor", ResourceType::host::<Descriptor>(), |mut store, descriptor| {
        dropped(store.data_mut(), descriptor)
    })?;
    type OpenAt2 = (Resource<Descriptor>, files2::PathFlags, String, files2::OpenFlags, files2::DescriptorFlags);
    files.func_wrap_async(
        "[method]descriptor.open-at",
        |mut store: StoreContextMut<'_, Guest>, (folder, how, path, open, flags): OpenAt2| {
            Box::new(async move {
                use files2::HostDescriptor as _;
                let guest = store.data_mut();
                let Some(place) = place_for_file(guest) else {
                    return Ok((Err(files2::ErrorCode::InsufficientMemory),));
                };
                if !may_open2(guest, &folder, how, &path).await {
                    return Ok((Err(files2::ErrorCode::Access),));
                }
                let opened = guest.filesystem().open_at(folder, how, path, open, flags).await;
                if let Ok(opened) = &opened {
                    keep(guest, opened, place)?;
                }
                answer(opened)
            })
        },
    )?;
    // It opens what it sets the times of.
    type SetTimes2 = (Resource<Descriptor>, files2::PathFlags, String, files2::NewTimestamp, files2::NewTimestamp);
    files.func_wrap_async(
        "[method]descriptor.set-times-at",
        |mut store: StoreContextMut<'_, Guest>, (folder, how, path, accessed, modified): SetTimes2| {
            Box::new(async move {
                use files2::HostDescriptor as _;
                let guest = store.data_mut();
                if !may_open2(guest, &folder, how, &path).await {
                    return Ok((Err(files2::ErrorCode::Access),));
                }
                answer(guest.filesystem().set_times_at(folder, how, path, accessed, modified).await)
            })
        },
    )
}

/// Whether what stands at a path may be opened: opening a pipe waits for its other end, and holds a thread of all components of
/// the app. What is not there is for the call to tell.
async fn may_open2(guest: &mut Guest, folder: &Resource<Descriptor>, how: files2::PathFlags, path: &str) -> bool {
    use files2::{DescriptorType as Type, HostDescriptor as _};
    let folder = Resource::new_borrow(folder.rep());
    let there = guest.filesystem().stat_at(folder, how, path.to_owned()).await;
    there.map_or(true, |there| matches!(there.type_, Type::RegularFile | Type::Directory | Type::SymbolicLink))
}

async fn may_open3(
    files: &Accessor<Guest, WasiFilesystem>,
    folder: &Resource<Descriptor>,
    how: files3::PathFlags,
    path: &str,
) -> bool {
    use files3::{DescriptorType as Type, HostDescriptorWithStore as _};
    let folder = Resource::new_borrow(folder.rep());
    let there = WasiFilesystem::stat_at(files, folder, how, path.to_owned()).await;
    there.map_or(true, |there| matches!(there.type_, Type::RegularFile | Type::Directory | Type::SymbolicLink))
}

fn add_p3(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    use sockets3::{ErrorCode, HostTcpSocket, HostTcpSocketWithStore as _, HostUdpSocket, IpAddressFamily};
    type Ended = FutureReader<Result<(), ErrorCode>>;
    let mut sockets = linker.instance("wasi:sockets/types@0.3.0")?;
    sockets.func_wrap(
        "[static]tcp-socket.create",
        |mut store: StoreContextMut<'_, Guest>, (family,): (IpAddressFamily,)| {
            let guest = store.data_mut();
            let Some(place) = guest.account.descriptor() else { return Ok((Err(ErrorCode::OutOfMemory),)) };
            let place = Arc::new(place);
            let socket = HostTcpSocket::create(&mut ForSocket::new(guest, Arc::clone(&place)).sockets(), family);
            if let Ok(socket) = &socket {
                let socket: &Resource<TcpSocket> = socket;
                guest.open.sockets.insert(socket.rep(), Arc::downgrade(&place));
            }
            answer(socket)
        },
    )?;
    sockets.func_wrap_async(
        "[static]udp-socket.create",
        |mut store: StoreContextMut<'_, Guest>, (family,): (IpAddressFamily,)| {
            Box::new(async move {
                let guest = store.data_mut();
                let Some(place) = guest.account.descriptor() else { return Ok((Err(ErrorCode::OutOfMemory),)) };
                let mut made = ForSocket::new(guest, place);
                let socket: Result<Resource<UdpSocket>, _> = HostUdpSocket::create(&mut made.sockets(), family).await;
                answer(socket)
            })
        },
    )?;
    sockets.func_wrap(
        "[method]tcp-socket.send",
        |mut store: StoreContextMut<'_, Guest>, (socket, data): (Resource<TcpSocket>, StreamReader<u8>)| {
            let places = places_of(store.data_mut(), &socket);
            let access = Access::<_, WasiSockets>::new(store.as_context_mut(), Guest::sockets);
            let ended: Ended = WasiSockets::send(access, socket, data)?;
            Ok((until(&mut store, ended, places)?,))
        },
    )?;
    sockets.func_wrap(
        "[method]tcp-socket.receive",
        |mut store: StoreContextMut<'_, Guest>, (socket,): (Resource<TcpSocket>,)| {
            let places = places_of(store.data_mut(), &socket);
            let access = Access::<_, WasiSockets>::new(store.as_context_mut(), Guest::sockets);
            let (data, ended): (StreamReader<u8>, Ended) = WasiSockets::receive(access, socket)?;
            Ok(((data, until(&mut store, ended, places)?),))
        },
    )?;
    add_files_p3(linker)
}

fn add_files_p3(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    use files3::{
        DescriptorFlags, DirectoryEntry, ErrorCode, HostDescriptorWithStore as _, NewTimestamp, OpenFlags, PathFlags,
    };
    type OpenAt3 = (Resource<Descriptor>, PathFlags, String, OpenFlags, DescriptorFlags);
    let mut files = linker.instance("wasi:filesystem/types@0.3.0")?;
    files.resource("descriptor", ResourceType::host::<Descriptor>(), |mut store, descriptor| {
        dropped(store.data_mut(), descriptor)
    })?;
    files.func_wrap_concurrent(
        "[method]descriptor.open-at",
        |accessor, (folder, how, path, open, flags): OpenAt3| {
            Box::pin(async move {
                let Some(place) = accessor.with(|mut access| place_for_file(access.data_mut())) else {
                    return Ok((Err(ErrorCode::InsufficientMemory),));
                };
                let files = accessor.with_getter::<WasiFilesystem>(Guest::filesystem);
                if !may_open3(&files, &folder, how, &path).await {
                    return Ok((Err(ErrorCode::Access),));
                }
                let opened = WasiFilesystem::open_at(&files, folder, how, path, open, flags).await;
                if let Ok(opened) = &opened {
                    accessor.with(|mut access| keep(access.data_mut(), opened, place))?;
                }
                answer(opened)
            })
        },
    )?;
    type SetTimes3 = (Resource<Descriptor>, PathFlags, String, NewTimestamp, NewTimestamp);
    files.func_wrap_concurrent(
        "[method]descriptor.set-times-at",
        |accessor, (folder, how, path, accessed, modified): SetTimes3| {
            Box::pin(async move {
                let files = accessor.with_getter::<WasiFilesystem>(Guest::filesystem);
                if !may_open3(&files, &folder, how, &path).await {
                    return Ok((Err(ErrorCode::Access),));
                }
                answer(WasiFilesystem::set_times_at(&files, folder, how, path, accessed, modified).await)
            })
        },
    )?;
    // Reading a folder holds a thread until all of it is read, and a descriptor.
    files.func_wrap(
        "[method]descriptor.read-directory",
        |mut store: StoreContextMut<'_, Guest>, (folder,): (Resource<Descriptor>,)| {
            let guest = store.data_mut();
            let places = (guest.account.descriptor(), guest.component.threads.take());
            let (Some(descriptor), Some(thread)) = places else {
                let none: StreamReader<DirectoryEntry> = StreamReader::new(store.as_context_mut(), Vec::new())?;
                let refused = async { wasmtime::error::Ok(Err(ErrorCode::InsufficientMemory)) };
                let ended: FutureReader<Result<(), ErrorCode>> = FutureReader::new(store.as_context_mut(), refused)?;
                return Ok(((none, ended),));
            };
            let access = Access::<_, WasiFilesystem>::new(store.as_context_mut(), Guest::filesystem);
            let (entries, ended) = WasiFilesystem::read_directory(access, folder)?;
            let places = vec![Arc::new(descriptor), Arc::new(thread)];
            Ok(((entries, until(&mut store, ended, places)?),))
        },
    )
}

/// The place of a socket of WASI 0.3.
fn places_of(guest: &mut Guest, socket: &Resource<TcpSocket>) -> Vec<Arc<Place>> {
    guest.open.sockets.get(&socket.rep()).and_then(Weak::upgrade).into_iter().collect()
}

/// Whether a core module may open one more file.
fn module_may_open(guest: &mut Guest) -> bool {
    let open = &mut guest.open;
    if open.module_uses >= open.of_module.len() {
        // As many as it has in its table, where its folders are too.
        let in_table = guest
            .p1
            .as_mut()
            .map_or(0, |p1| p1.ctx().table.iter_mut().filter(|entry| entry.is::<Descriptor>()).count());
        open.of_module.truncate(in_table);
        open.module_uses = in_table;
        for _ in 0..MODULE_TAKES {
            match guest.account.descriptor() {
                Some(place) => guest.open.of_module.push(place),
                None => break,
            }
        }
    }
    let open = &mut guest.open;
    let may = open.module_uses < open.of_module.len();
    open.module_uses += usize::from(may);
    may
}

/// The same for core modules. Shadowing is allowed by the caller.
pub(crate) fn add_to_linker_p1(linker: &mut wasmtime::Linker<Guest>) -> wasmtime::Result<()> {
    /// `mfile` of `errno`: too many files are open.
    const MFILE: i32 = 33;
    type PathOpen = (i32, i32, i32, i32, i32, i64, i64, i32, i32);
    linker.func_wrap_async(
        "wasi_snapshot_preview1",
        "path_open",
        |mut caller: Caller<'_, Guest>, (fd, look, path, length, open, rights, inherited, flags, opened): PathOpen| {
            Box::new(async move {
                use wasi_snapshot_preview1::WasiSnapshotPreview1 as _;
                if !module_may_open(caller.data_mut()) {
                    return Ok(MFILE);
                }
                let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
                    wasmtime::bail!("missing required memory export")
                };
                let fuel = caller.as_context_mut().hostcall_fuel();
                let (memory, guest) = memory.data_and_store_mut(&mut caller);
                let p1 = guest.p1.as_mut().expect("stores of core modules are made by Guest::store_p1");
                p1.set_hostcall_fuel(fuel);
                let mut memory = wiggle::GuestMemory::Unshared(memory);
                wasi_snapshot_preview1::path_open(
                    p1,
                    &mut memory,
                    fd,
                    look,
                    path,
                    length,
                    open,
                    rights,
                    inherited,
                    flags,
                    opened,
                )
                .await
            })
        },
    )?;
    Ok(())
}
