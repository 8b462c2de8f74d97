//! Loaded code: what an image holds for a device, as far as the simulator needs it.
//!
//! PTX is preferred over cubins, because it can be executed. A cubin's kernels are known by name and parameters only;
//! so are those of a PTX text that the interpreter refuses, if there is a cubin beside it.

use std::ffi::CString;

use torpor_proto::image::{self, Image, ImageKind, cubin, fatbin};

use crate::compile;
use crate::error::{CudaError, Result};
use crate::log::Log;
use crate::ptx;

/// The code of a module.
#[derive(Debug, Default)]
pub struct Code {
    /// Its kernels.
    pub kernels: Vec<KernelInfo>,
    /// Its variables in device memory.
    pub globals: Vec<GlobalInfo>,
    /// Names of the functions that have addresses, the kernels among them; none for a cubin.
    pub functions: Vec<String>,
    /// What executes it; none for a cubin.
    pub ptx: Option<ptx::Module>,
}

/// A kernel's name and needs.
#[derive(Debug, Clone)]
pub struct KernelInfo {
    /// As `cuModuleGetFunction` asks for it.
    pub name: CString,
    /// Offset and size in bytes of each parameter.
    pub parameters: Vec<(usize, usize)>,
    /// Shared memory that it declares.
    pub static_shared_bytes: u32,
    /// Local memory of a thread.
    pub local_bytes: u32,
    /// Registers of a thread.
    pub registers: u32,
    /// Most threads of a block.
    pub max_threads_per_block: u32,
}

/// A variable in device memory.
#[derive(Debug, Clone, Default)]
pub struct GlobalInfo {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: usize,
    /// Its alignment.
    pub align: usize,
    /// Its first contents; zero behind their end.
    pub init: Vec<u8>,
    /// Addresses to store: offset, variable or function, what to add.
    pub relocations: Vec<(usize, String, i64)>,
    /// Declared `.const`.
    pub constant: bool,
    /// Declared `.attribute(.managed)`: to be moved to memory of the host, for here it is in device memory.
    pub managed: bool,
    /// Where kernels find it, if that is not where the driver puts it: see [`crate::compile`].
    pub address: Option<u64>,
}

impl Code {
    /// The code for a device of compute capability `sm` in the image that a program passed as an address.
    ///
    /// The address comes from a C caller of a module function, which promises what cuda.h demands: an image is there.
    pub fn load(address: *const u8, sm: u32, log: &Log) -> Result<Self> {
        // SAFETY: the exported functions demand that their image pointer is null or points to a complete fatbin, cubin
        // or NUL-terminated text, readable until they return; nothing of it is kept beyond that.
        let image = unsafe { image::measure(address) }.map_err(|error| invalid(log, &error))?;
        Self::from_image(&image, sm, log)
    }

    fn from_image(image: &Image<'_>, sm: u32, log: &Log) -> Result<Self> {
        match image.kind {
            ImageKind::Ptx => Self::from_ptx(image.bytes, log),
            ImageKind::Elf => Self::from_cubin(image.bytes, sm, log),
            ImageKind::Container => Self::from_container(image.bytes, sm, log),
            // Torpor's own, which no driver knows.
            ImageKind::Bundle => Err(CudaError::INVALID_IMAGE),
        }
    }

    fn from_container(bytes: &[u8], sm: u32, log: &Log) -> Result<Self> {
        let entries = fatbin::entries(bytes).map_err(|error| invalid(log, &error))?;
        let entries: Vec<_> = entries.collect::<Result<_, _>>().map_err(|error| invalid(log, &error))?;
        let text = entries
            .iter()
            .filter(|entry| entry.kind == fatbin::EntryKind::PTX && entry.sm <= sm)
            .max_by_key(|entry| entry.sm);
        let binary = entries
            .iter()
            .filter(|entry| {
                entry.kind == fatbin::EntryKind::CUBIN && entry.sm / 10 == sm / 10 && entry.sm <= sm
            })
            .max_by_key(|entry| entry.sm);
        let payload = |entry: &fatbin::Entry<'_>| {
            entry.payload().map_err(|error| invalid(log, &error)).map(std::borrow::Cow::into_owned)
        };
        let from_text = text.map(|entry| Self::from_ptx(&payload(entry)?, log));
        match (from_text, binary) {
            (Some(Ok(code)), _) => Ok(code),
            (_, Some(entry)) => Self::from_cubin(&payload(entry)?, sm, log),
            (Some(refused), None) => refused,
            (None, None) => Err(CudaError::NO_BINARY_FOR_GPU),
        }
    }

    /// The code in PTX text.
    pub fn from_ptx(bytes: &[u8], log: &Log) -> Result<Self> {
        let text = image::ptx::text(bytes).ok_or(CudaError::INVALID_PTX)?;
        Self::of_module(ptx::Module::parse(text).map_err(|error| {
            log.line(&format!("a module is refused: {error}"));
            CudaError::INVALID_PTX
        })?)
    }

    /// The code in PTX texts that are linked, each with its NUL. `tell` is told why there is none.
    pub fn from_texts(bytes: &[u8], tell: impl FnOnce(&str)) -> Result<Self> {
        let texts = bytes.split(|&byte| byte == 0).filter(|text| !text.is_empty());
        let texts = texts.map(str::from_utf8).collect::<std::result::Result<Vec<_>, _>>();
        let module = ptx::Module::link(texts.map_err(|_| CudaError::INVALID_PTX)?);
        Self::of_module(module.map_err(|error| {
            tell(&error.to_string());
            match error {
                // What a driver says whose linker finds a name nowhere, or twice (`CUDA_ERROR_UNKNOWN`).
                ptx::PtxError::Undefined { .. } | ptx::PtxError::Duplicate { .. } => CudaError::UNKNOWN,
                _ => CudaError::INVALID_PTX,
            }
        })?)
    }

    fn of_module(module: ptx::Module) -> Result<Self> {
        let kernel = |kernel: &ptx::Kernel| {
            Some(KernelInfo {
                name: CString::new(kernel.name.as_str()).ok()?,
                parameters: kernel
                    .parameters
                    .iter()
                    .map(|parameter| (parameter.offset, parameter.bytes))
                    .collect(),
                static_shared_bytes: u32::try_from(kernel.static_shared_bytes).ok()?,
                local_bytes: u32::try_from(kernel.local_bytes).ok()?,
                registers: kernel.registers,
                max_threads_per_block: kernel.max_threads_per_block,
            })
        };
        let global = |global: &ptx::Global| GlobalInfo {
            name: global.name.clone(),
            bytes: global.bytes,
            align: global.align,
            init: global.init.clone(),
            relocations: global.relocations.clone(),
            constant: global.constant,
            managed: global.managed,
            address: None,
        };
        let kernels =
            module.kernels().iter().map(kernel).collect::<Option<_>>().ok_or(CudaError::INVALID_PTX)?;
        let globals = module.globals().iter().map(global).collect();
        let functions = module.functions().to_vec();
        Ok(Self { kernels, globals, functions, ptx: Some(module) })
    }

    fn from_cubin(bytes: &[u8], sm: u32, log: &Log) -> Result<Self> {
        if let Some(text) = cubin::section(bytes, compile::TEXT).map_err(|error| invalid(log, &error))? {
            let tell = |why: &str| log.line(&format!("a linked module is refused: {why}"));
            let mut code = Self::from_texts(text, tell)?;
            compile::place_variables(&mut code, bytes).map_err(|error| invalid(log, &error))?;
            compile::take_registers(&mut code, bytes).map_err(|error| invalid(log, &error))?;
            return Ok(code);
        }
        // From sm_90 on the section of static shared memory starts with what the system reserves.
        let reserved = if sm >= 90 { 1024 } else { 0 };
        let kernel = |kernel: cubin::Kernel<'_>| {
            Some(KernelInfo {
                name: CString::new(kernel.name).ok()?,
                parameters: kernel
                    .parameters
                    .iter()
                    .map(|parameter| (parameter.offset_bytes as usize, parameter.size_bytes as usize))
                    .collect(),
                static_shared_bytes: u32::try_from(kernel.static_shared_bytes.saturating_sub(reserved))
                    .ok()?,
                local_bytes: 0,
                registers: if kernel.registers == 0 { 32 } else { kernel.registers },
                max_threads_per_block: 1024,
            })
        };
        let kernels = cubin::kernels(bytes).map_err(|error| invalid(log, &error))?;
        let globals = cubin::globals(bytes).map_err(|error| invalid(log, &error))?;
        let global = |global: &cubin::Global<'_>| {
            let bytes = usize::try_from(global.size_bytes).ok()?;
            Some(GlobalInfo { name: global.name.to_owned(), bytes, align: 256, ..GlobalInfo::default() })
        };
        Ok(Self {
            kernels: kernels
                .into_iter()
                .map(kernel)
                .collect::<Option<_>>()
                .ok_or(CudaError::INVALID_IMAGE)?,
            globals: globals.iter().map(global).collect::<Option<_>>().ok_or(CudaError::INVALID_IMAGE)?,
            functions: Vec::new(),
            ptx: None,
        })
    }

    /// The position of the kernel with this name.
    pub fn kernel(&self, name: &str) -> Option<usize> {
        self.kernels.iter().position(|kernel| kernel.name.as_bytes() == name.as_bytes())
    }

    /// The position of the variable with this name.
    pub fn global(&self, name: &str) -> Option<usize> {
        self.globals.iter().position(|global| global.name == name)
    }
}

fn invalid(log: &Log, error: &image::ImageError) -> CudaError {
    log.line(&format!("an image is refused: {error}"));
    CudaError::INVALID_IMAGE
}
