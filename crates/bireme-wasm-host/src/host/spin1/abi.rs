//! Strings, lists and results of a module, as they lie in its memory.

use wasmtime::{AsContext, AsContextMut, Caller, Extern, Instance, InstancePre, Memory, Store, TypedFunc};

use crate::account::Charge;
use crate::guest::Guest;

/// Where a string or a list begins, and how many bytes or elements it has.
pub(crate) type Slice = (i32, i32);

/// Gives memory: where it was, how large it was, alignment, how large it shall be.
type Realloc = TypedFunc<(i32, i32, i32, i32), i32>;

/// Bytes of a string or list within a list.
pub(crate) const SLICE: usize = 8;

/// Bytes that the host holds for each string, beside its own.
const OF_EACH: usize = 64;

const NO_MEMORY: &str = "the module exports no memory";
pub(super) const REALLOC: &str = "canonical_abi_realloc";

/// The memory of an instance, and how more of it is had.
pub(crate) struct Abi {
    memory: Memory,
    realloc: Realloc,
}

impl Abi {
    /// A fresh instance, ready to be called.
    ///
    /// # Errors
    /// When it lacks its memory or what gives more; what it traps with when it is initialised.
    pub(crate) async fn begin(
        store: &mut Store<Guest>,
        pre: &InstancePre<Guest>,
    ) -> wasmtime::Result<(Instance, Self)> {
        let instance = pre.instantiate_async(&mut *store).await?;
        let memory = instance.get_memory(&mut *store, "memory").ok_or_else(|| wasmtime::format_err!(NO_MEMORY))?;
        let realloc = instance.get_typed_func(&mut *store, REALLOC)?;
        if let Some(initialize) = instance.get_func(&mut *store, "_initialize") {
            initialize.typed::<(), ()>(&mut *store)?.call_async(&mut *store, ()).await?;
        }
        Ok((instance, Self { memory, realloc }))
    }

    /// `length` bytes at `at`.
    ///
    /// # Errors
    /// A trap for what is not within the memory.
    pub(crate) fn bytes<'a, T: 'static>(
        &self,
        store: &'a impl AsContext<Data = T>,
        at: i32,
        length: usize,
    ) -> wasmtime::Result<&'a [u8]> {
        let begin = at.cast_unsigned() as usize;
        let found = begin.checked_add(length).and_then(|end| self.memory.data(store).get(begin..end));
        found.ok_or_else(|| wasmtime::Error::from(wasmtime::Trap::MemoryOutOfBounds))
    }

    /// What a slice of bytes is.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub(crate) fn slice<'a, T: 'static>(
        &self,
        store: &'a impl AsContext<Data = T>,
        slice: Slice,
    ) -> wasmtime::Result<&'a [u8]> {
        self.bytes(store, slice.0, slice.1.cast_unsigned() as usize)
    }

    /// The elements of a list, `size` bytes each.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub(crate) fn elements<'a, T: 'static>(
        &self,
        store: &'a impl AsContext<Data = T>,
        list: Slice,
        size: usize,
    ) -> wasmtime::Result<impl Iterator<Item = &'a [u8]>> {
        let length = (list.1.cast_unsigned() as usize).checked_mul(size).ok_or(wasmtime::Trap::MemoryOutOfBounds)?;
        Ok(self.bytes(store, list.0, length)?.chunks_exact(size))
    }

    /// Puts `bytes` where the module gives memory for them; they are the module's then.
    ///
    /// # Errors
    /// What the module traps with, and a trap where it gives memory that it has not.
    pub(crate) async fn give(
        &self,
        store: &mut impl AsContextMut<Data = Guest>,
        bytes: &[u8],
        alignment: i32,
    ) -> wasmtime::Result<i32> {
        let length = i32::try_from(bytes.len()).map_err(|_| wasmtime::Trap::MemoryOutOfBounds)?;
        store.as_context_mut().data_mut().gives_memory = true;
        let given = self.realloc.call_async(&mut *store, (0, 0, alignment, length)).await;
        store.as_context_mut().data_mut().gives_memory = false;
        let at = given?;
        self.put(store, at, 0, bytes)?;
        Ok(at)
    }

    /// The same for a string or a list of bytes, as the slice that it is.
    ///
    /// # Errors
    /// As [`Self::give`].
    pub(crate) async fn give_text(
        &self,
        store: &mut impl AsContextMut<Data = Guest>,
        text: &[u8],
    ) -> wasmtime::Result<Slice> {
        Ok((self.give(store, text, 1).await?, text.len() as i32))
    }

    /// A list of strings.
    ///
    /// # Errors
    /// As [`Self::give`].
    pub(crate) async fn give_texts<'a>(
        &self,
        store: &mut impl AsContextMut<Data = Guest>,
        texts: impl IntoIterator<Item = &'a [u8]>,
    ) -> wasmtime::Result<Slice> {
        let (mut elements, mut count) = (Vec::new(), 0);
        for text in texts {
            elements.extend(lowered(self.give_text(store, text).await?));
            count += 1;
        }
        Ok((self.give(store, &elements, 4).await?, count))
    }

    /// Writes `bytes` at `offset` behind `at`.
    ///
    /// # Errors
    /// A trap for what is not within the memory.
    pub(crate) fn put(
        &self,
        store: &mut impl AsContextMut<Data = Guest>,
        at: i32,
        offset: usize,
        bytes: &[u8],
    ) -> wasmtime::Result<()> {
        let at = (at.cast_unsigned() as usize).checked_add(offset).ok_or(wasmtime::Trap::MemoryOutOfBounds)?;
        self.memory.write(&mut *store, at, bytes).map_err(|_| wasmtime::Error::from(wasmtime::Trap::MemoryOutOfBounds))
    }
}

/// A slice as it lies in memory.
pub(crate) fn lowered(slice: Slice) -> [u8; SLICE] {
    let mut bytes = [0; SLICE];
    bytes[..4].copy_from_slice(&slice.0.to_le_bytes());
    bytes[4..].copy_from_slice(&slice.1.to_le_bytes());
    bytes
}

/// The slice that lies at `at` in an element or a record.
pub(crate) fn raised(bytes: &[u8], at: usize) -> Slice {
    (number(bytes, at), number(bytes, at + 4))
}

/// The 32 bits at `at`; the length of a record is known.
pub(crate) fn number(bytes: &[u8], at: usize) -> i32 {
    let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    i32::from_le_bytes(bytes.unwrap_or_default())
}

/// A call of an import.
pub(super) struct Call<'a> {
    pub(super) caller: Caller<'a, Guest>,
    pub(super) abi: Abi,
    /// What the host holds for the call.
    charges: Vec<Charge>,
}

impl<'a> Call<'a> {
    pub(super) fn new(mut caller: Caller<'a, Guest>) -> wasmtime::Result<Self> {
        // As of components: one would call the other without end, each time on a stack of its own.
        if caller.data().gives_memory {
            wasmtime::bail!("{REALLOC} of the module calls an import, which it may not");
        }
        let Some(Extern::Memory(memory)) = caller.get_export("memory") else { wasmtime::bail!(NO_MEMORY) };
        let Some(Extern::Func(realloc)) = caller.get_export(REALLOC) else {
            wasmtime::bail!("the module exports no {REALLOC}")
        };
        let realloc = realloc.typed(&caller)?;
        Ok(Self { caller, abi: Abi { memory, realloc }, charges: Vec::new() })
    }

    /// A copy of a list of bytes, which its instance pays for.
    ///
    /// # Errors
    /// A trap for what is not within the memory, or more than the instance may have the host hold.
    pub(super) fn bytes(&mut self, slice: Slice) -> wasmtime::Result<Vec<u8>> {
        let length = self.abi.slice(&self.caller, slice)?.len();
        let charge = self.caller.data().account.charge(length + OF_EACH);
        self.charges.push(charge.map_err(wasmtime::Error::msg)?);
        Ok(self.abi.slice(&self.caller, slice)?.to_vec())
    }

    /// Pays for the elements of a list.
    ///
    /// # Errors
    /// More than the instance may have the host hold.
    pub(super) fn pay(&mut self, elements: i32) -> wasmtime::Result<()> {
        let charge = self.caller.data().account.charge((elements.cast_unsigned() as usize).saturating_mul(OF_EACH));
        self.charges.push(charge.map_err(wasmtime::Error::msg)?);
        Ok(())
    }

    /// A string.
    ///
    /// # Errors
    /// As [`Self::bytes`]; a trap for what is not UTF-8.
    pub(super) fn text(&mut self, slice: Slice) -> wasmtime::Result<String> {
        String::from_utf8(self.bytes(slice)?).map_err(|_| wasmtime::format_err!("a string of the module is not UTF-8"))
    }

    /// A list of strings.
    ///
    /// # Errors
    /// As [`Self::text`].
    pub(super) fn texts(&mut self, list: Slice) -> wasmtime::Result<Vec<String>> {
        self.slices(list, SLICE, 0)?.into_iter().map(|slice| self.text(slice)).collect()
    }

    /// The slices at `at` in each element of a list.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub(super) fn slices(&mut self, list: Slice, size: usize, at: usize) -> wasmtime::Result<Vec<Slice>> {
        self.pay(list.1)?;
        Ok(self.abi.elements(&self.caller, list, size)?.map(|element| raised(element, at)).collect())
    }

    /// Writes at `offset` behind `at`, the place for the result.
    ///
    /// # Errors
    /// A trap for what is not within the memory.
    pub(super) fn put(&mut self, at: i32, offset: usize, bytes: &[u8]) -> wasmtime::Result<()> {
        self.abi.put(&mut self.caller, at, offset, bytes)
    }

    /// Answers with a list of bytes or a string: `0`, and the slice four bytes on.
    ///
    /// # Errors
    /// As [`Abi::give`].
    pub(super) async fn answer_text(&mut self, at: i32, text: &[u8]) -> wasmtime::Result<()> {
        let slice = self.abi.give_text(&mut self.caller, text).await?;
        self.put(at, 0, &[0])?;
        self.put(at, 4, &lowered(slice))
    }

    /// Answers with a list of strings, in the same form.
    ///
    /// # Errors
    /// As [`Abi::give`].
    pub(super) async fn answer_texts(&mut self, at: i32, texts: &[String]) -> wasmtime::Result<()> {
        let list = self.abi.give_texts(&mut self.caller, texts.iter().map(String::as_bytes)).await?;
        self.put(at, 0, &[0])?;
        self.put(at, 4, &lowered(list))
    }

    /// Answers with an error that is a variant with a string: `1`, the variant four bytes on, and the string.
    ///
    /// # Errors
    /// As [`Abi::give`].
    pub(super) async fn answer_variant(&mut self, at: i32, variant: u8, text: &str) -> wasmtime::Result<()> {
        let slice = self.abi.give_text(&mut self.caller, text.as_bytes()).await?;
        self.put(at, 0, &[1])?;
        self.put(at, 4, &[variant])?;
        self.put(at, 8, &lowered(slice))
    }
}
