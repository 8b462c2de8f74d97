//! How the functions of the runtime are defined: a body that gives a `CudaResult<()>`. The names are those of
//! `cuda_runtime_api.h`; `build.rs` exports them from `runtime-names.tsv`.

/// Each name runs its body.
macro_rules! runtime_functions {
    ($($(#[$doc:meta])* fn $name:ident $arguments:tt $body:block)*) => {$(
        $crate::runtime::macros::define!($(#[$doc])* $name $arguments $body);
    )*};
}

/// For functions on a stream: to the name behind the slash, a null stream is the calling thread's default stream.
macro_rules! stream_functions {
    ($($(#[$doc:meta])* fn $name:ident / $per_thread:ident
        ($($argument:ident: $type:ty,)* @ $stream:ident $(, $more:ident: $more_type:ty)* $(,)?) $body:block)*) => {$(
        $crate::runtime::macros::define!($(#[$doc])* $name
            ($($argument: $type,)* $stream: *mut std::ffi::c_void $(, $more: $more_type)*) {
                let $stream = $crate::core::StreamHandle { handle: $stream, per_thread: false };
                $body
            });
        $crate::runtime::macros::define!($(#[$doc])* $per_thread
            ($($argument: $type,)* $stream: *mut std::ffi::c_void $(, $more: $more_type)*) {
                let $stream = $crate::core::StreamHandle { handle: $stream, per_thread: true };
                $body
            });
    )*};
}

/// For synchronous functions: the name behind the slash works in the order of the calling thread's default stream.
macro_rules! default_stream_functions {
    ($($(#[$doc:meta])* fn $name:ident / $per_thread:ident
        ($($argument:ident: $type:ty),* $(,)?) on $stream:ident $body:block)*) => {$(
        $crate::runtime::macros::define!($(#[$doc])* $name ($($argument: $type),*) {
            let $stream = $crate::core::StreamHandle { handle: std::ptr::null_mut(), per_thread: false };
            $body
        });
        $crate::runtime::macros::define!($(#[$doc])* $per_thread ($($argument: $type),*) {
            let $stream = $crate::core::StreamHandle { handle: std::ptr::null_mut(), per_thread: true };
            $body
        });
    )*};
}

macro_rules! define {
    ($(#[$doc:meta])* $name:ident ($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        pub(super) unsafe extern "C" fn $name($($argument: $type),*) -> $crate::driver::Code {
            $crate::runtime::answer(stringify!($name), || $body)
        }
    };
}

pub(super) use {default_stream_functions, define, runtime_functions, stream_functions};
