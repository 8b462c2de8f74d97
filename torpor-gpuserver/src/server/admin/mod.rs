//! The admin API: what people and other programs ask the node server and tell it.

mod events;
mod function_error;
pub(crate) mod functions;
pub(crate) mod suggestions;
mod told;

use crate::chunk::CHUNK_BYTES;
use crate::server::clients::ClientTable;
use crate::server::keeper;
use crate::server::node::{FunctionError, Node};
use crate::server::settings::{self, Terms};
use crate::server::topology;
use crate::server::workers::executor::Executor;
use crate::server::workers::gpu::Gpu;
use crate::server::workers::usage::{self, Activity};
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};
use tokio::task::spawn_blocking;
use told::{Costs, Told};
use tonic::{Request, Response, Status, Streaming};
use torpor_proto::control::admin::admin_server::Admin;
use torpor_proto::control::admin::{
    Client, Enclosure, EnsureFunctionRequest, EnsureFunctionResponse, FollowEventsRequest, FunctionTime,
    ListClientsRequest, ListClientsResponse, ListFunctionsRequest, ListFunctionsResponse, ListGpusRequest,
    ListGpusResponse, LoadFunctionRequest, LoadFunctionResponse, PinFunctionRequest, PinFunctionResponse,
    RemoveFunctionRequest, RemoveFunctionResponse, ReportStoreRequest, ReportStoreResponse,
    ReportTopologyRequest, ReportTopologyResponse, RequestMark, ShutdownRequest, ShutdownResponse, SpillDisk,
    StoreClient, UnloadFunctionRequest, UnloadFunctionResponse, VerifyStoreRequest, VerifyStoreResponse,
};
use torpor_proto::control::worker::Usage;
use torpor_proto::directory::check_function_name;

/// Why a server cannot end for another one.
const NO_KEEPER: &str =
    "this server has no keeper that would start the next one: it was started without --keeper true";

/// The service, over a node.
#[derive(Debug)]
pub struct AdminService(pub Arc<Node>);

#[tonic::async_trait]
impl Admin for AdminService {
    async fn ensure_function(
        &self,
        request: Request<EnsureFunctionRequest>,
    ) -> Result<Response<EnsureFunctionResponse>, Status> {
        let EnsureFunctionRequest { name, terms } = request.into_inner();
        // Before anybody can be a client of it.
        if let Some(terms) = terms {
            check_function_name(&name).map_err(FunctionError::from)?;
            settings::agree(&self.0, &name, Terms::new(terms)?).await?;
        }
        let directory = self.0.ensure_function(&name)?;
        let directory = directory.into_os_string().into_string();
        let directory = directory.map_err(|_| Status::internal("the server's directory is no UTF-8"))?;
        let devices = self.0.settings().of(&name).gpus.get();
        Ok(Response::new(EnsureFunctionResponse { directory, devices }))
    }

    async fn remove_function(
        &self,
        request: Request<RemoveFunctionRequest>,
    ) -> Result<Response<RemoveFunctionResponse>, Status> {
        self.0.remove_function(&request.get_ref().name)?;
        Ok(Response::new(RemoveFunctionResponse {}))
    }

    async fn list_clients(
        &self,
        _request: Request<ListClientsRequest>,
    ) -> Result<Response<ListClientsResponse>, Status> {
        let used = usage::by_client(self.0.gpus()).await;
        let clients = self.0.clients();
        let clients = clients.iter().filter(|client| client.is_serving()).map(|client| {
            let usage = used.get(&client.id.0).copied().unwrap_or_default();
            Client {
                id: client.id.0,
                function: client.introduction.function.clone(),
                pid: client.pid,
                program: client.introduction.program.clone(),
                gpu: self.0.gpus()[client.introduction.gpu()].index,
                memory_bytes: usage.memory_bytes,
                pinned_bytes: usage.pinned_bytes,
                state: Activity::of(client.has_failed(), &usage).to_string(),
                commands: usage.commands,
                age_ms: u64::try_from(client.since.elapsed().as_millis()).unwrap_or(u64::MAX),
                allocated_bytes: usage::allocated_bytes(&usage),
                host_bytes: usage.host_bytes,
                covered: usage.covered,
            }
        });
        Ok(Response::new(ListClientsResponse { clients: clients.collect() }))
    }

    async fn list_gpus(
        &self,
        _request: Request<ListGpusRequest>,
    ) -> Result<Response<ListGpusResponse>, Status> {
        let reports = usage::by_gpu(self.0.gpus()).await;
        let clients = self.0.clients();
        let gpus = self.0.gpus().iter().zip(reports).enumerate().map(|(at, (gpu, said))| {
            let status = gpu.status();
            let (state, trouble) = (status.word().to_owned(), status.trouble());
            let here = clients.iter().filter(|client| client.is_serving() && client.introduction.gpu() == at);
            let device = status.device.unwrap_or_default();
            let options = self.0.options();
            let said = || said.iter().flatten();
            let sum_of = |of: fn(&Usage) -> u64| said().map(of).fold(0, u64::saturating_add);
            let pinned = said().flat_map(|usage| &usage.clients).map(|client| client.pinned_bytes);
            torpor_proto::control::admin::Gpu {
                index: gpu.index,
                name: device.name.clone(),
                total_memory_bytes: device.total_memory_bytes,
                limit_bytes: self.0.gpu_limit_bytes(at).unwrap_or(0),
                free_memory_bytes: said().map(|usage| usage.free_memory_bytes).next().unwrap_or(0),
                pinned_bytes: pinned.fold(0, u64::saturating_add),
                pinned_limit_bytes: options.pinned_limit_bytes,
                code_bytes: sum_of(|usage| usage.code_bytes),
                code_limit_bytes: options.memory.code_limit().0,
                clients: u32::try_from(here.count()).unwrap_or(u32::MAX),
                worker_pid: status.worker_pid.unwrap_or(0),
                worker_restarts: status.worker_restarts,
                state,
                trouble,
                simulated: self.0.simulated(),
                times: times(gpu),
                spare: status.spare.word().to_owned(),
                spare_pid: status.spare.pid().unwrap_or(0),
                landing_bytes: sum_of(|usage| usage.landing_bytes),
                from_host_bytes: sum_of(|usage| usage.from_host_bytes),
                from_peers_bytes: sum_of(|usage| usage.from_peers_bytes),
                enclosures: enclosures(gpu, &clients),
                enclosure_bytes: gpu.context_bytes(),
            }
        });
        Ok(Response::new(ListGpusResponse { gpus: gpus.collect() }))
    }

    async fn list_functions(
        &self,
        _request: Request<ListFunctionsRequest>,
    ) -> Result<Response<ListFunctionsResponse>, Status> {
        let functions = functions::list(&self.0).await;
        Ok(Response::new(ListFunctionsResponse { functions }))
    }

    async fn load_function(
        &self,
        request: Request<LoadFunctionRequest>,
    ) -> Result<Response<LoadFunctionResponse>, Status> {
        let LoadFunctionRequest { name, gpu } = request.into_inner();
        let resident_bytes = functions::load(&self.0, &name, gpu).await?;
        Ok(Response::new(LoadFunctionResponse { resident_bytes }))
    }

    async fn unload_function(
        &self,
        request: Request<UnloadFunctionRequest>,
    ) -> Result<Response<UnloadFunctionResponse>, Status> {
        functions::unload(&self.0, &request.get_ref().name).await?;
        Ok(Response::new(UnloadFunctionResponse {}))
    }

    async fn pin_function(
        &self,
        request: Request<PinFunctionRequest>,
    ) -> Result<Response<PinFunctionResponse>, Status> {
        let PinFunctionRequest { name, pinned, gpu } = request.into_inner();
        functions::pin(&self.0, &name, pinned, gpu).await?;
        Ok(Response::new(PinFunctionResponse {}))
    }

    type MarkRequestsStream = Costs;

    async fn mark_requests(
        &self,
        request: Request<Streaming<RequestMark>>,
    ) -> Result<Response<Costs>, Status> {
        let (told, costs) = Told::new(self.0.clone());
        tokio::spawn(told.hear(request.into_inner()));
        Ok(Response::new(costs))
    }

    type FollowEventsStream = events::Events;

    async fn follow_events(
        &self,
        request: Request<FollowEventsRequest>,
    ) -> Result<Response<Self::FollowEventsStream>, Status> {
        Ok(Response::new(events::follow(&self.0, request.get_ref().follow)))
    }

    async fn report_topology(
        &self,
        _request: Request<ReportTopologyRequest>,
    ) -> Result<Response<ReportTopologyResponse>, Status> {
        Ok(Response::new(topology::report(&self.0).await))
    }

    async fn report_store(
        &self,
        _request: Request<ReportStoreRequest>,
    ) -> Result<Response<ReportStoreResponse>, Status> {
        let usage = self.0.realms().usage();
        let directory = self.0.options().directory.images();
        // A file system may take its time.
        let images = spawn_blocking(move || bytes_in(&directory)).await;
        let bytes = |chunks: usize| chunks as u64 * CHUNK_BYTES;
        let clients = usage.index.clients.iter().map(|client| StoreClient {
            client: client.client.0,
            host_bytes: client.referred_bytes,
            spilled_bytes: client.spilled_bytes,
        });
        Ok(Response::new(ReportStoreResponse {
            pool_bytes: usage.pool_bytes,
            total_bytes: bytes(usage.index.total_slots),
            used_bytes: bytes(usage.index.used_slots),
            saved_bytes: usage.index.saved_bytes,
            spilled_bytes: bytes(usage.index.spilled),
            spill_limit_bytes: usage.spill_limit_bytes,
            spill_disk: usage.spill_disk.as_ref().map(|(directory, free_bytes)| SpillDisk {
                directory: directory.display().to_string(),
                free_bytes: *free_bytes,
            }),
            clients: clients.collect(),
            // What cannot be read holds nothing that anybody could use.
            image_bytes: images.ok().and_then(Result::ok).unwrap_or(0),
            image_limit_bytes: self.0.options().memory.image_limit().0,
        }))
    }

    async fn verify_store(
        &self,
        _request: Request<VerifyStoreRequest>,
    ) -> Result<Response<VerifyStoreResponse>, Status> {
        let report = self.0.realms().verify().await;
        Ok(Response::new(VerifyStoreResponse {
            chunks: report.chunks as u64,
            checked: report.checked as u64,
            checked_bytes: report.checked_bytes,
            shared: report.shared as u64,
            spilled: report.spilled as u64,
            damaged: report.damaged,
            contradictions: report.contradictions,
        }))
    }

    async fn shutdown(
        &self,
        request: Request<ShutdownRequest>,
    ) -> Result<Response<ShutdownResponse>, Status> {
        if request.get_ref().keep {
            if !self.0.keeper().is_there() {
                return Err(Status::failed_precondition(NO_KEEPER));
            }
            tracing::info!("ending for the next server, as the admin API was told to");
            tokio::spawn(keeper::end_for_the_next());
            return Ok(Response::new(ShutdownResponse {}));
        }
        tracing::info!("ending, as the admin API was told to");
        self.0.stop();
        Ok(Response::new(ShutdownResponse {}))
    }
}

/// How long functions have used a GPU.
fn times(gpu: &Gpu) -> Vec<FunctionTime> {
    let times = gpu.times().by_function().into_iter();
    times.map(|(function, gpu_us)| FunctionTime { function, gpu_us }).collect()
}

/// The workers of strict functions on a GPU.
fn enclosures(gpu: &Gpu, clients: &ClientTable) -> Vec<Enclosure> {
    let enclosure = |(function, executor): (String, Arc<Executor>)| {
        let status = executor.status();
        let its = clients.iter().filter(|client| Arc::ptr_eq(&client.introduction.at, &executor));
        Enclosure {
            function,
            worker_pid: status.worker_pid.unwrap_or(0),
            state: status.word().to_owned(),
            trouble: status.trouble(),
            worker_restarts: status.worker_restarts,
            clients: u32::try_from(its.filter(|client| client.is_serving()).count()).unwrap_or(u32::MAX),
        }
    };
    gpu.enclosed().into_iter().map(enclosure).collect()
}

/// The length of all files in a directory.
fn bytes_in(directory: &Path) -> io::Result<u64> {
    let lengths = fs::read_dir(directory)?.map(|entry| Ok(entry?.metadata()?.len()));
    // One that is gone by now has none.
    Ok(lengths.filter_map(io::Result::ok).sum())
}
