//! The functions of arrays, texture and surface objects, and the copies that can lead into arrays and wait.

use super::{Export, THREAD_VARIANTS};
use crate::abi::{
    Array3dDescriptor, ArrayDescriptor, In, Memcpy2d, Memcpy3d, Out, ResourceDesc, ResourceViewDesc,
    TextureDesc,
};
use crate::entry::call;
use crate::memory::copy_box;
use crate::{array, texture};

#[rustfmt::skip]
exports! {
    call cuArray3DCreate_v2 = "cuArray3DCreate" 3020 (handle: Out<u64>, descriptor: In<Array3dDescriptor>) |m| array::create(m, handle, descriptor);
    call cuArrayDestroy = "cuArrayDestroy" 2000 (handle: u64) |m| array::destroy(m, handle);
    call cuArrayGetDescriptor_v2 = "cuArrayGetDescriptor" 3020 (descriptor: Out<ArrayDescriptor>, handle: u64) |m| array::descriptor(m, descriptor, handle);
    call cuArray3DGetDescriptor_v2 = "cuArray3DGetDescriptor" 3020 (descriptor: Out<Array3dDescriptor>, handle: u64) |m| array::descriptor_3d(m, descriptor, handle);
    call cuMipmappedArrayCreate = "cuMipmappedArrayCreate" 5000 (handle: Out<u64>, descriptor: In<Array3dDescriptor>, levels: u32) |m| array::create_mipmapped(m, handle, descriptor, levels);
    call cuMipmappedArrayGetLevel = "cuMipmappedArrayGetLevel" 5000 (handle: Out<u64>, mipmapped: u64, level: u32) |m| array::mipmap_level(m, handle, mipmapped, level);
    call cuMipmappedArrayDestroy = "cuMipmappedArrayDestroy" 5000 (handle: u64) |m| array::destroy_mipmapped(m, handle);

    call cuTexObjectCreate = "cuTexObjectCreate" 5000 (handle: Out<u64>, resource: In<ResourceDesc>, sampler: In<TextureDesc>, view: In<ResourceViewDesc>) |m| texture::create(m, handle, resource, sampler, view);
    call cuTexObjectDestroy = "cuTexObjectDestroy" 5000 (handle: u64) |m| texture::destroy(m, handle);
    call cuTexObjectGetResourceDesc = "cuTexObjectGetResourceDesc" 5000 (resource: Out<ResourceDesc>, handle: u64) |m| texture::resource(m, resource, handle);
    call cuTexObjectGetTextureDesc = "cuTexObjectGetTextureDesc" 5000 (sampler: Out<TextureDesc>, handle: u64) |m| texture::sampler(m, sampler, handle);
    call cuTexObjectGetResourceViewDesc = "cuTexObjectGetResourceViewDesc" 5000 (view: Out<ResourceViewDesc>, handle: u64) |m| texture::view(m, view, handle);
    call cuSurfObjectCreate = "cuSurfObjectCreate" 5000 (handle: Out<u64>, resource: In<ResourceDesc>) |m| texture::create_surface(m, handle, resource);
    call cuSurfObjectDestroy = "cuSurfObjectDestroy" 5000 (handle: u64) |m| texture::destroy_surface(m, handle);
    call cuSurfObjectGetResourceDesc = "cuSurfObjectGetResourceDesc" 5000 (resource: Out<ResourceDesc>, handle: u64) |m| texture::surface_resource(m, resource, handle);

    call cuMemcpy2D_v2 = "cuMemcpy2D" 3020 (request: In<Memcpy2d>) |m| copy_box::two_dimensional(m, request, 0, true);
    call cuMemcpy3D_v2 = "cuMemcpy3D" 3020 (request: In<Memcpy3d>) |m| copy_box::three_dimensional(m, request, 0, true);
}
