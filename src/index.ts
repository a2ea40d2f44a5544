/** The public names of `layerstore`; no logic. */
export { ERROR_CODES, LayerStoreError } from './errors.js';
export type { ErrorCode, Holder, LayerStoreErrorDetails } from './errors.js';

export {
  createChainID,
  DIGEST_SHA256_EMPTY_TAR,
  isEmptyLayer,
  parseChainID,
  parseDiffID,
  parseDigest,
} from './digest.js';
export type { Brand, ChainID, DiffID, Digest } from './digest.js';

export { openStore } from './store/open.js';
export { emptyLayer } from './store/without-store.js';
export { formatChange } from './store/without-store.js';
export { hashFile } from './store/without-store.js';
export { engineFeatures } from './engine/features.js';
export { DEFAULT_LIMITS } from './engine/limits.js';
export { openEngine } from './engine/select.js';
export type { OpenEngineOptions } from './engine/select.js';
export { logReleaseMetadata, releaseAndLog } from './store/log.js';
export { OPERATIONS } from './store/lifecycle.js';
export type { Operation, OperationDetails, OperationEvent } from './store/lifecycle.js';
export type {
  ChainLink,
  CleanupReport,
  CloseOptions,
  CreateRWLayerOptions,
  DescribableStore,
  Exported,
  ExportOptions,
  FreedItem,
  GcReport,
  Layer,
  LayerMetadata,
  LayerProblem,
  Logger,
  MountedPath,
  Reference,
  RegisterOptions,
  RWLayer,
  RWLayerInfo,
  Store,
  StoreOptions,
  StoreUsage,
  TarStreamer,
  VerifyOptions,
  VerifyReport,
} from './store/types.js';

export type {
  Assembled,
  AssembleRequest,
  AssembleToRequest,
  BatchOp,
  BlobCompression,
  Change,
  DiffGetter,
  DiffRequest,
  Engine,
  EngineFeatures,
  FileLock,
  HashFileResult,
  IngestRequest,
  IngestResult,
  MountEntry,
  MountTier,
  OverlayMount,
  Progress,
  ProgressListener,
  CommitTreeRequest,
  SmallFilesRow,
  TarSource,
  TarSplitTarget,
  TreeProblem,
  TreeStack,
  TreeTarRequest,
  TreeUsage,
  UnpackLimits,
  VerifyTreeRequest,
  WhiteoutForm,
} from './engine/engine.js';
export type {
  ApplyOptions,
  ApplyResult,
  CreateReadWriteOptions,
  DriverCapabilities,
  GraphDriver,
  DriverLeftover,
  LiveMount,
} from './driver/graph-driver.js';
export type { LayerEntry } from './driver/layer-entries.js';
export type {
  BrokenRecord,
  Descriptor,
  LayerRecord,
  LoadedRecords,
  MetadataStore,
  MetadataTransaction,
  MountRecord,
  NamedMountRecord,
} from './metadata/metadata-store.js';

export { openImages } from './image/index.js';
export type {
  AnalyzedFile,
  BlobProgress,
  ContainerConfig,
  CreateImageOptions,
  DuplicateContent,
  HistoryEntry,
  Image,
  ImageAnalysis,
  ImageConfig,
  ImageLimits,
  ImageProgress,
  ImageProgressListener,
  LayerAnalysis,
  SaveProgress,
  SaveProgressListener,
  Images,
  LoadOptions,
  PullOptions,
  PullProgressListener,
  PushOptions,
  PushProgressListener,
  RegistryCredentials,
  RegistryHost,
  RegistryOptions,
  SaveOptions,
  WastedPath,
} from './image/index.js';
