/**
 * The shapes that `--json` prints, one value a command. Where a command gives what an API call resolves to, the handle
 * is flattened into plain data.
 */
import type {
  ChainID,
  Change,
  Descriptor,
  DiffID,
  Digest,
  GcReport,
  Image,
  Layer,
  LayerMetadata,
  RWLayerInfo,
  StoreUsage,
  VerifyReport,
} from '../index.js';
import { defined } from '../util/defined.js';

/** `register`, `commit` */
export interface LayerJson {
  chainID: ChainID;
  diffID: DiffID;
  parent?: ChainID;
  size: number;
  diffSize: number;
  descriptor?: Descriptor;
}
/** `build-image`, `load` (an array), `images` (an array), `tag` */
export interface ImageJson {
  id: Digest;
  names: readonly string[];
  /** Absent for an image without layers. */
  chainID?: ChainID;
  diffIDs: readonly DiffID[];
  size: number;
}
/** `ls` */
export interface LsJson {
  layers: (LayerJson & { references: string[] })[];
  rwLayers: RWLayerInfo[];
}
/** `inspect` */
export type InspectJson =
  | ({ type: 'layer'; references: string[]; metadata: Record<string, string> } & LayerJson)
  | ({ type: 'rw'; size: number; metadata: Record<string, string> } & RWLayerInfo)
  | ({ type: 'image'; config: unknown } & ImageJson);
/** `create` */
export interface CreateJson {
  name: string;
  mountID: string;
}
/** `mount`, `umount` */
export interface MountJson {
  name: string;
  path?: string;
  mountCount: number;
}
/** `export`: only with `-o`; `diffID` only of a layer's own tar */
export interface ExportJson {
  bytes: number;
  diffID?: DiffID;
}
/** `history`: newest first; what made no layer has no `chainID` */
export type HistoryJson = {
  created?: string;
  createdBy?: string;
  comment?: string;
  chainID?: ChainID;
  size?: number;
}[];
/** `report` */
export interface ReportJson {
  path: string;
  bytes: number;
}
/** `diff` */
export type DiffJson = Change[];
/** `rm` */
export type RmJson = LayerMetadata[];
/** `verify` */
export type VerifyJson = VerifyReport;
/** `gc`: what was removed, or would be */
export type GcJson = GcReport['removed'];
/** `info` */
export interface InfoJson {
  version: string;
  root: string;
  /** Absent where there is no store yet. */
  driver?: string;
  engine: 'native' | 'js';
  /** Why it is not the native one, where that was not asked for. */
  engineReason?: string;
  node: string;
  status: Record<string, string>;
  features: Record<string, string>;
}
/** `df` */
export type DfJson = StoreUsage;
/** A failure, of any command. */
export interface ErrorJson {
  error: { code: string; message: string };
}

export async function layerJson(layer: Layer): Promise<LayerJson> {
  return {
    chainID: layer.chainID,
    diffID: layer.diffID,
    ...defined({ parent: layer.parent?.chainID }),
    size: await layer.size(),
    diffSize: await layer.diffSize(),
    ...defined({ descriptor: layer.descriptor }),
  };
}

export function imageJson({ id, names, chainID, diffIDs, size }: Image): ImageJson {
  return { id, names, ...defined({ chainID }), diffIDs, size };
}
