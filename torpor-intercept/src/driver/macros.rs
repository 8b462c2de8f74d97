//! How C functions are defined: a body that gives a `CudaResult<()>`, behind exported names that let no panic out.

/// Each name, and each further name of the same ABI (`|`), runs the body.
macro_rules! cuda_functions {
    ($($(#[$doc:meta])* fn $name:ident $(| $alias:ident)* ($($argument:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        const _: () = {
            #[inline]
            fn body($($argument: $type),*) -> $crate::core::CudaResult<()> $body

            $crate::driver::macros::export!([$name $($alias)*] ($($argument: $type),*));
        };
    )*};
}

/// For functions on a stream: to the name behind the slash, a null stream is the calling thread's default stream.
macro_rules! stream_functions {
    ($($(#[$doc:meta])* fn $name:ident / $per_thread:ident
        ($($argument:ident: $type:ty,)* @ $stream:ident $(, $more:ident: $more_type:ty)* $(,)?) $body:block)*) => {$(
        const _: () = {
            #[inline]
            fn body(
                $($argument: $type,)* $stream: $crate::core::StreamHandle $(, $more: $more_type)*
            ) -> $crate::core::CudaResult<()> $body

            /// See `cuda.h`.
            ///
            /// # Safety
            /// As `cuda.h` says.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name(
                $($argument: $type,)* $stream: *mut std::ffi::c_void $(, $more: $more_type)*
            ) -> $crate::driver::Code {
                let $stream = $crate::core::StreamHandle { handle: $stream, per_thread: false };
                $crate::driver::answer(stringify!($name), || body($($argument,)* $stream $(, $more)*))
            }

            /// See `cuda.h`.
            ///
            /// # Safety
            /// As `cuda.h` says.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $per_thread(
                $($argument: $type,)* $stream: *mut std::ffi::c_void $(, $more: $more_type)*
            ) -> $crate::driver::Code {
                let $stream = $crate::core::StreamHandle { handle: $stream, per_thread: true };
                $crate::driver::answer(stringify!($per_thread), || body($($argument,)* $stream $(, $more)*))
            }
        };
    )*};
}

/// The exported functions of [`cuda_functions`].
macro_rules! export {
    ([$($name:ident)*] $arguments:tt) => {
        $($crate::driver::macros::export!(@one $name $arguments);)*
    };
    (@one $name:ident ($($argument:ident: $type:ty),*)) => {
        /// See `cuda.h`.
        ///
        /// # Safety
        /// As `cuda.h` says.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> $crate::driver::Code {
            $crate::driver::answer(stringify!($name), || body($($argument),*))
        }
    };
}

pub(crate) use {cuda_functions, export, stream_functions};
