/** What engines say and hear about mounts. No logic. */

export interface OverlayMount {
  /** Absent: a read-only mount of the lower directories alone. */
  upper?: string;
  work?: string;
  /** Nearest first. At least one. */
  lowers: readonly string[];
  target: string;
  /** Options of overlayfs and of the mount, already validated: `index=off`, `volatile`, `nodev`, `context="…"`. */
  options: readonly string[];
}
/** How a mount was made: file-descriptor parameters, `lowerdir+` by path, or classic `mount(2)`. */
export type MountTier = 'fd' | 'lowerdir+' | 'classic';

export interface MountEntry {
  id: number;
  parent: number;
  fsType: string;
  source: string;
  target: string;
  /** Root of the mount inside its file system. */
  root: string;
  /** Options of the super block, in the kernel's words. */
  options: string;
}
