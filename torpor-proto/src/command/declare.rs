//! What a declaration of commands yields: data, encoding, a worker's traits, and the dispatch between them.

macro_rules! signature {
    (posted $(#[$doc:meta])* $method:ident $Name:ident ()) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// The CUDA error that the driver, or a check before it, gave.
        fn $method(&mut self, command: $Name, tail: &[u8]) -> Result<(), CudaError>;
    };
    (awaited $(#[$doc:meta])* $method:ident $Name:ident $Reply:ty) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// The CUDA error that the driver, or a check before it, gave.
        fn $method(&mut self, command: $Name, tail: &[u8], ticket: Ticket) -> Result<Outcome<$Reply>, CudaError>;
    };
}

macro_rules! kind {
    (posted) => {
        Kind::Posted
    };
    (awaited) => {
        Kind::Awaited
    };
}

macro_rules! arm {
    (posted $executor:ident $record:ident $method:ident $Name:ident ()) => {{
        let (command, tail) = decode::<$Name>($record)?;
        Dispatched::Posted($Name::NAME, $executor.$method(command, tail))
    }};
    (awaited $executor:ident $record:ident $method:ident $Name:ident $Reply:ty) => {{
        let (command, tail) = decode::<$Name>($record)?;
        let ticket = Ticket($record.header().slot);
        match $executor.$method(command, tail, ticket) {
            Ok(Outcome::Pending) => Dispatched::Pending($Name::NAME, ticket),
            Ok(Outcome::Done(reply, tail)) => {
                Dispatched::Answer($Name::NAME, ticket, Ok((answer_words(&reply), tail)))
            }
            Err(error) => Dispatched::Answer($Name::NAME, ticket, Err(error)),
        }
    }};
}

macro_rules! commands {
    ($(
        $(#[$family_doc:meta])*
        family $Family:ident {
            $(
                $(#[$doc:meta])*
                $kind:ident $opcode:literal $method:ident: $Name:ident {
                    $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
                } -> $Reply:tt;
            )*
        }
    )*) => {
        $($(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
            #[repr(C, align(8))]
            pub struct $Name {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            const _: () = assert!(size_of::<$Name>() % 8 == 0);

            impl Command for $Name {
                const OPCODE: u16 = $opcode;
                const KIND: Kind = kind!($kind);
                const NAME: &'static str = stringify!($Name);
                type Reply = $Reply;
            }
        )*)*

        $(
            $(#[$family_doc])*
            pub trait $Family {
                $(signature!($kind $(#[$doc])* $method $Name $Reply);)*
            }
        )*

        /// Everything a worker can be asked.
        pub trait Execute: $($Family +)* {}

        impl<T: $($Family +)*> Execute for T {}

        /// Number, name and kind of every command.
        pub const ALL: &[(u16, &str, Kind)] = &[$($(($Name::OPCODE, $Name::NAME, $Name::KIND),)*)*];

        /// Gives a record to the method it is for.
        ///
        /// # Errors
        /// [`Malformed`] if the record is no command; nothing was executed then.
        pub fn dispatch<E: Execute + ?Sized>(executor: &mut E, record: &Record) -> Result<Dispatched, Malformed> {
            Ok(match record.header().opcode {
                $($($opcode => arm!($kind executor record $method $Name $Reply),)*)*
                other => return Err(Malformed::Opcode(other)),
            })
        }
    };
}

pub(super) use {arm, commands, kind, signature};
