//! The structures of cuda.h 13.0 that are passed by address.
//!
//! Enumerations of cuda.h are plain integers here, because their values come from outside.

/// `CUuuid`.
pub type Uuid = [u8; 16];

/// `CUmemLocation`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct MemLocation {
    /// 1: a device; 2 to 4: the host.
    pub kind: u32,
    /// The device's ordinal.
    pub id: i32,
}

/// `CUmemAllocationProp`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct MemAllocationProp {
    /// 1: pinned.
    pub kind: u32,
    /// How the handle may be exported.
    pub requested_handle_types: u32,
    /// Where the memory lies.
    pub location: MemLocation,
    /// Windows only.
    pub win32_metadata: u64,
    /// Compression and remote access hints.
    pub flags: [u8; 8],
}

/// `CUmemAccessDesc`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct MemAccessDesc {
    /// Who gets access.
    pub location: MemLocation,
    /// 0 none, 1 read, 3 read and write.
    pub flags: u32,
}

/// `CUdevResource`. What comes before the count is the driver's own.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct DevResource {
    /// 1: multiprocessors; 0: nothing.
    pub kind: u32,
    /// The device's ordinal.
    pub device: u32,
    /// The split that it is of; 0 for all that a context has.
    pub split: u32,
    /// The multiprocessors, a bit for each.
    pub set: [u32; 8],
    /// Nothing.
    pub padding: [u32; 13],
    /// How many there are.
    pub count: u32,
    /// How many a part has at least.
    pub least: u32,
    /// What the number of a part's is a multiple of.
    pub alignment: u32,
    /// Nothing.
    pub rest: [u32; 9],
}

const _: () = assert!(size_of::<DevResource>() == 144 && std::mem::offset_of!(DevResource, count) == 96);

/// `CUDA_MEMCPY2D_v2`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs, reason = "fields are named and described in cuda.h")]
pub struct Memcpy2d {
    pub src_x_bytes: usize,
    pub src_y: usize,
    pub src_type: u32,
    pub src_host: u64,
    pub src_device: u64,
    pub src_array: u64,
    pub src_pitch: usize,
    pub dst_x_bytes: usize,
    pub dst_y: usize,
    pub dst_type: u32,
    pub dst_host: u64,
    pub dst_device: u64,
    pub dst_array: u64,
    pub dst_pitch: usize,
    pub width_bytes: usize,
    pub height: usize,
}

/// `CUDA_MEMCPY3D_v2`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs, reason = "fields are named and described in cuda.h")]
pub struct Memcpy3d {
    pub src_x_bytes: usize,
    pub src_y: usize,
    pub src_z: usize,
    pub src_lod: usize,
    pub src_type: u32,
    pub src_host: u64,
    pub src_device: u64,
    pub src_array: u64,
    pub reserved0: u64,
    pub src_pitch: usize,
    pub src_height: usize,
    pub dst_x_bytes: usize,
    pub dst_y: usize,
    pub dst_z: usize,
    pub dst_lod: usize,
    pub dst_type: u32,
    pub dst_host: u64,
    pub dst_device: u64,
    pub dst_array: u64,
    pub reserved1: u64,
    pub dst_pitch: usize,
    pub dst_height: usize,
    pub width_bytes: usize,
    pub height: usize,
    pub depth: usize,
}

/// `CUDA_ARRAY_DESCRIPTOR_v2`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are named and described in cuda.h")]
pub struct ArrayDescriptor {
    pub width: usize,
    pub height: usize,
    pub format: u32,
    pub channels: u32,
}

/// `CUDA_ARRAY3D_DESCRIPTOR_v2`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields are named and described in cuda.h")]
pub struct Array3dDescriptor {
    pub width: usize,
    pub height: usize,
    pub depth: usize,
    pub format: u32,
    pub channels: u32,
    pub flags: u32,
}

/// `CUDA_RESOURCE_DESC`: a kind and a union of 128 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct ResourceDesc {
    /// 0 an array, 1 a mipmapped one, 2 memory in a row, 3 rows with a pitch.
    pub kind: u32,
    /// The union, as words.
    pub value: [u64; 16],
    /// Zero.
    pub flags: u32,
}

/// `CUDA_TEXTURE_DESC`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs, reason = "fields are named and described in cuda.h")]
pub struct TextureDesc {
    pub address_modes: [u32; 3],
    pub filter_mode: u32,
    pub flags: u32,
    pub max_anisotropy: u32,
    pub mipmap_filter_mode: u32,
    pub mipmap_level_bias: f32,
    pub min_mipmap_level_clamp: f32,
    pub max_mipmap_level_clamp: f32,
    pub border_color: [f32; 4],
    pub reserved: [i32; 12],
}

/// `CUDA_RESOURCE_VIEW_DESC`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs, reason = "fields are named and described in cuda.h")]
pub struct ResourceViewDesc {
    pub format: u32,
    pub width: usize,
    pub height: usize,
    pub depth: usize,
    pub first_mipmap_level: u32,
    pub last_mipmap_level: u32,
    pub first_layer: u32,
    pub last_layer: u32,
    pub reserved: [u32; 16],
}

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs, reason = "fields are named and described in cuda.h")]
pub struct LaunchConfig {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub stream: u64,
    pub attributes: u64,
    pub attribute_count: u32,
}

/// `CUlaunchAttribute`: an identifier and a union of 64 bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LaunchAttribute {
    /// Which attribute.
    pub id: u32,
    /// Padding.
    pub pad: u32,
    /// The union, as words.
    pub value: [u64; 8],
}

/// `CUtensorMap`: 128 opaque bytes.
pub type TensorMap = [u64; 16];

/// `CUgraphNodeParams` of a conditional node.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct NodeParams {
    /// `CUgraphNodeType`.
    pub node_type: u32,
    /// Zero.
    pub reserved: [u32; 3],
    /// A condition's handle.
    pub condition: u64,
    /// `CUgraphConditionalNodeType`.
    pub kind: u32,
    /// How many graphs.
    pub bodies: u32,
    /// Where the driver says where the graphs' handles are.
    pub graphs: u64,
    /// The context that it is in.
    pub context: u64,
    /// Nothing of a conditional node's.
    pub rest: [u64; 26],
}

#[cfg(test)]
mod tests {
    use cudarc::driver::sys;

    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_header() {
        assert_eq!(size_of::<MemAllocationProp>(), size_of::<sys::CUmemAllocationProp>());
        assert_eq!(size_of::<MemAccessDesc>(), size_of::<sys::CUmemAccessDesc>());
        assert_eq!(size_of::<Memcpy2d>(), size_of::<sys::CUDA_MEMCPY2D_v2>());
        assert_eq!(size_of::<Memcpy3d>(), size_of::<sys::CUDA_MEMCPY3D_v2>());
        assert_eq!(size_of::<LaunchConfig>(), size_of::<sys::CUlaunchConfig>());
        assert_eq!(size_of::<LaunchAttribute>(), size_of::<sys::CUlaunchAttribute>());
        assert_eq!(size_of::<ArrayDescriptor>(), size_of::<sys::CUDA_ARRAY_DESCRIPTOR_v2>());
        assert_eq!(size_of::<Array3dDescriptor>(), size_of::<sys::CUDA_ARRAY3D_DESCRIPTOR_v2>());
        assert_eq!(size_of::<ResourceDesc>(), size_of::<sys::CUDA_RESOURCE_DESC>());
        assert_eq!(size_of::<TextureDesc>(), size_of::<sys::CUDA_TEXTURE_DESC>());
        assert_eq!(size_of::<ResourceViewDesc>(), size_of::<sys::CUDA_RESOURCE_VIEW_DESC>());
        assert_eq!(size_of::<TensorMap>(), size_of::<sys::CUtensorMap>());
        assert_eq!(
            std::mem::offset_of!(Memcpy3d, dst_pitch),
            std::mem::offset_of!(sys::CUDA_MEMCPY3D_v2, dstPitch)
        );
        assert_eq!(
            std::mem::offset_of!(LaunchConfig, stream),
            std::mem::offset_of!(sys::CUlaunchConfig, hStream)
        );
    }
}
