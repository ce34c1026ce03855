//! A device that runs nothing: it keeps what it is asked to launch.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::StreamId;
use burn_cubecl::cubecl::Device;
use burn_cubecl::cubecl::bytes::Bytes;
use burn_cubecl::cubecl::client::Client;
use burn_cubecl::cubecl::device::CudaDevice;
use burn_cubecl::cubecl::future::DynFut;
use burn_cubecl::cubecl::ir::features::Features;
use burn_cubecl::cubecl::ir::{
    DeviceIdentity, DeviceProperties, HardwareProperties, MemoryDeviceProperties, TargetProperties, VectorSize,
};
use burn_cubecl::cubecl::profile::{ProfileDuration, TimingMethod};
use cubecl_common::device::{DeviceId, DeviceService, ServerUtilitiesHandle, ServiceId};
use cubecl_cpp::register_supported_types;
use cubecl_server::allocator::PitchedMemoryLayoutPolicy;
use cubecl_server::dry_run::LaunchMode;
use cubecl_server::id::KernelId;
use cubecl_server::kernel::CubeKernel;
use cubecl_server::logging::ServerLogger;
use cubecl_server::memory_management::{ManagedMemoryHandle, MemoryAllocationMode, StreamMemoryReport};
use cubecl_server::server::{
    BufferBinding, CopyDescriptor, CubeCount, IoError, KernelArguments, ProfileError, ProfilingToken, Server,
    ServerCommunication, ServerError, ServerStorage, ServerUtilities,
};
use cubecl_server::storage::{ComputeStorage, ManagedResource, StorageHandle, StorageId};

/// The alignment of rows, as CubeCL's CUDA runtime has it.
const ALIGNMENT: usize = 512;

/// A kernel that was launched.
pub(super) struct Launched(pub(super) Box<dyn CubeKernel>);

impl fmt::Debug for Launched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

/// The kernels launched so far, each once.
type Kernels = Arc<Mutex<Vec<Launched>>>;

/// A device with the properties of an H200.
pub(super) struct Recorder {
    pub(super) client: Client,
    /// The name of the device, which no other recorder has.
    pub(super) device: Device,
    kernels: Kernels,
}

impl Recorder {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let index = NEXT.fetch_add(1, Ordering::Relaxed);
        let (id, kernels) = (DeviceId::new(0, index), Kernels::default());
        let client = Client::init(id, RecordingServer::new(id, kernels.clone()));
        Self { client, device: Device::Cuda(CudaDevice::new(index.into())), kernels }
    }

    /// Returns the kernels that have been launched since the last call for the first time.
    pub(super) fn take(&self) -> Result<Vec<Launched>, String> {
        // Launches wait in a queue until then.
        self.client.flush().map_err(|error| error.to_string())?;
        Ok(std::mem::take(&mut *self.kernels.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[derive(Debug)]
struct RecordingServer {
    utilities: Arc<ServerUtilities>,
    seen: HashSet<KernelId>,
    kernels: Kernels,
}

impl RecordingServer {
    fn new(device: DeviceId, kernels: Kernels) -> Self {
        let (utilities, _) = ServerUtilities::init(
            ServiceId::of::<Self>(device),
            "cuda",
            properties(),
            TargetProperties::default(),
            Arc::new(ServerLogger::default()),
            PitchedMemoryLayoutPolicy::new(ALIGNMENT),
        );
        Self { utilities: Arc::new(utilities), seen: HashSet::new(), kernels }
    }
}

fn properties() -> DeviceProperties {
    let hardware = HardwareProperties {
        load_width: 128,
        vector_register_count: None,
        plane_size_min: 32,
        plane_size_max: 32,
        max_bindings: 1024,
        max_shared_memory_size: 227 << 10,
        max_cube_count: (i32::MAX as u32, u16::MAX as u32, u16::MAX as u32),
        max_units_per_cube: 1024,
        max_cube_dim: (1024, 1024, 64),
        num_streaming_multiprocessors: Some(132),
        num_tensor_cores: Some(4),
        min_tensor_cores_dim: Some(8),
        num_cpu_cores: None,
        last_level_cache_size: None,
        max_vector_size: VectorSize::MAX,
        cube_mma_reserved_shared_memory: 0,
    };
    let identity =
        DeviceIdentity { name: "NVIDIA H200".to_owned(), fingerprint: "ptx_sm90".to_owned(), physical: None };
    let memory = MemoryDeviceProperties::new(35 << 30, ALIGNMENT as u64);
    let mut properties = DeviceProperties::new(Features::default(), memory, hardware, TimingMethod::Device, identity);
    register_supported_types(&mut properties);
    properties
}

fn no_memory() -> ServerError {
    ServerError::graph_state("the device that records kernels has no memory")
}

impl Server for RecordingServer {
    fn initialize_memory(&mut self, _: ManagedMemoryHandle, _: u64, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn logger(&self) -> Arc<ServerLogger> {
        self.utilities.logger.clone()
    }

    fn utilities(&self) -> Arc<ServerUtilities> {
        self.utilities.clone()
    }

    fn read(&mut self, _: Vec<CopyDescriptor>, _: StreamId) -> DynFut<Result<Vec<Bytes>, ServerError>> {
        Box::pin(async { Err(no_memory()) })
    }

    fn write(&mut self, _: Vec<(CopyDescriptor, Bytes)>, _: StreamId) {}

    fn sync(&mut self, _: Vec<BufferBinding>, _: StreamId) -> DynFut<Result<(), ServerError>> {
        Box::pin(async { Ok(()) })
    }

    fn check(&mut self, _: Vec<BufferBinding>, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    unsafe fn launch(
        &mut self,
        kernel: Box<dyn CubeKernel>,
        _: CubeCount,
        _: KernelArguments,
        _: StreamId,
        _: LaunchMode,
    ) {
        if self.seen.insert(kernel.id()) {
            self.kernels.lock().unwrap_or_else(PoisonError::into_inner).push(Launched(kernel));
        }
    }

    fn flush(&mut self, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn memory_report(&mut self, _: StreamId) -> Option<StreamMemoryReport> {
        None
    }

    fn memory_cleanup(&mut self, _: StreamId) -> Result<(), ServerError> {
        Ok(())
    }

    fn start_profile(&mut self, _: StreamId) -> Result<ProfilingToken, ServerError> {
        Err(no_memory())
    }

    fn end_profile(&mut self, _: StreamId, _: ProfilingToken) -> Result<ProfileDuration, ProfileError> {
        Err(ProfileError::from(&no_memory()))
    }

    fn allocation_mode(&mut self, _: MemoryAllocationMode, _: StreamId) {}
}

impl ServerStorage for RecordingServer {
    type Storage = NoStorage;

    fn get_resource(&mut self, _: BufferBinding, _: StreamId) -> Result<ManagedResource<()>, ServerError> {
        Err(no_memory())
    }
}

/// The storage of a device without memory, which a server has to name.
struct NoStorage;

impl ComputeStorage for NoStorage {
    type Resource = ();

    fn alignment(&self) -> usize {
        ALIGNMENT
    }

    fn get(&mut self, _: &StorageHandle) -> Result<(), IoError> {
        Err(IoError::UnsupportedIoOperation { backtrace: Default::default() })
    }

    fn alloc(&mut self, _: u64) -> Result<StorageHandle, IoError> {
        Err(IoError::UnsupportedIoOperation { backtrace: Default::default() })
    }

    fn dealloc(&mut self, _: StorageId) {}

    fn flush(&mut self) {}

    fn bytes_allocated(&self) -> u64 {
        0
    }
}

impl ServerCommunication for RecordingServer {}

impl DeviceService for RecordingServer {
    fn init(device: DeviceId) -> Self {
        Self::new(device, Kernels::default())
    }

    fn utilities(&self) -> ServerUtilitiesHandle {
        self.utilities.clone()
    }
}
