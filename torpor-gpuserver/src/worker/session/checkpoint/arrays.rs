//! Arrays, and texture and surface objects, as data. At the next worker they are made when the client has its turn; until then the
//! objects' handles are kept for them, or the client does not go there.

use super::saved::Saved;
use crate::worker::gpu::handles::Unobtainable;
use crate::worker::gpu::host_store::Place;
use crate::worker::objects::array::{Arrays, ClientArray, ClientObject, Recipe};
use crate::worker::session::Session;
use crate::worker::session::halt::Halt;
use std::rc::Rc;
use torpor_proto::command::ArrayCreate;
use torpor_proto::control::migration::{self, arrays};
use torpor_proto::error::CudaError;

impl Saved for Arrays {
    const NAME: &'static str = "arrays, texture and surface objects";
    type State = Option<migration::Arrays>;

    fn save(session: &mut Session) -> Result<Self::State, Halt> {
        if session.arrays.is_empty() {
            return Ok(None);
        }
        let all = session.arrays.all();
        let array = |(number, array): &(Option<u32>, Rc<ClientArray>)| {
            let start = array.start.get().ok_or(CudaError::OPERATING_SYSTEM)?;
            let made = bytemuck::bytes_of(&array.made).to_vec();
            Ok(arrays::Array { number: *number, made, start })
        };
        let place = |over: &Rc<ClientArray>| all.iter().position(|(_, array)| Rc::ptr_eq(array, over));
        let object = |object: &ClientObject| arrays::Object {
            handle: object.handle.number(),
            over: object.over.as_ref().and_then(place).map(|at| at as u32),
            made: Some(match &object.recipe {
                Recipe::Texture(made) => arrays::object::Made::Texture(bytemuck::bytes_of(made).to_vec()),
                Recipe::Surface(made) => arrays::object::Made::Surface(bytemuck::bytes_of(made).to_vec()),
            }),
        };
        Ok(Some(migration::Arrays {
            arrays: all.iter().map(array).collect::<Result<_, CudaError>>()?,
            objects: session.arrays.objects.values().map(object).collect(),
            chunks: session.arrays.stored.iter().map(|place| place.chunk).collect(),
        }))
    }

    fn restore(session: &mut Session, state: Self::State) -> Result<(), Halt> {
        let migration::Arrays { arrays, objects, chunks } = state.unwrap_or_default();
        // Where they are is known when the client has a lease again.
        session.arrays.stored = chunks.into_iter().map(|chunk| Place { chunk, slot: u32::MAX }).collect();
        let mut all = Vec::with_capacity(arrays.len());
        for arrays::Array { number, made, start } in arrays {
            let made: ArrayCreate = command(&made)?;
            let array = Rc::new(ClientArray::new(made, &session.space.array_bytes)?);
            session.space.check_limit(0)?;
            array.start.set(Some(start));
            if let Some(number) = number {
                session.arrays.insert(number, array.clone())?;
            }
            all.push(array);
        }
        for arrays::Object { handle, over, made } in objects {
            let over = match over {
                Some(at) => Some(all.get(at as usize).cloned().ok_or(CudaError::INVALID_VALUE)?),
                None => None,
            };
            let recipe = match made.ok_or(CudaError::INVALID_VALUE)? {
                arrays::object::Made::Texture(made) => Recipe::Texture(command(&made)?),
                arrays::object::Made::Surface(made) => Recipe::Surface(command(&made)?),
            };
            let claimed = session.shared.handles.claim(handle);
            let claimed = claimed.inspect_err(|why| tell_unobtainable(session, *why));
            let object = ClientObject { handle: claimed.map_err(CudaError::from)?, recipe, over };
            session.arrays.objects.insert((recipe.kind(), handle), object);
        }
        Ok(())
    }
}

fn command<T: bytemuck::Pod>(bytes: &[u8]) -> Result<T, CudaError> {
    bytemuck::try_pod_read_unaligned(bytes).map_err(|_| CudaError::INVALID_VALUE)
}

fn tell_unobtainable(session: &Session, why: Unobtainable) {
    let (client, function) = (session.link.client, &session.link.function);
    tracing::warn!(client, function, "it has a texture or surface object and cannot come to this GPU: {why}");
}
