/** The entry `layerstore/containerd`: a store as containerd's snapshotter and differ. */
export { serveContainerd, type ContainerdServer, type ServeContainerdOptions } from './serve.js';
