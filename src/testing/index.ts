/**
 * Conformance suites for programs that bring their own graph driver, metadata store or engine, and the tools that the
 * suites are made of. Everything registers tests with `node:test`; nothing asks for a name, only for capabilities.
 */
export { metadataStoreSuite } from './metadata-store-suite.js';
export type { MetadataStoreSuiteOptions } from './metadata-store-suite.js';
export { driverSuite } from './driver-suite.js';
export type { DriverSuiteOptions } from './driver-suite.js';
export { engineSuite } from './engine-suite.js';
export type { EngineSuiteOptions } from './engine-suite.js';
export { checkStoreStack, storeSuite } from './store-suite.js';
export type { StackResult, StoreSuiteOptions } from './store-suite.js';
export { changeLines, checkDriverStack } from './driver-oracle.js';
export type { DriverStackInput } from './driver-oracle.js';
export { checkSameDifference, checkSameIngest } from './engine-agreement.js';
export type { AgreementOptions } from './engine-agreement.js';

export * from './change-list.js';
export { applyChanges } from './apply-changes.js';
export { rootLayers, sampleLayers, xattrLayers } from './sample-changes.js';
export { expectedChanges, expectedSize } from './expected-changes.js';
export { assertSameTree, diffTrees, snapshotTree } from './tree-snapshot.js';
export type { SnapshotOptions, TreeEntry, TreeSnapshot } from './tree-snapshot.js';
export { buildTar, gnuLong, paxRecords, storedZstd, tarHeader } from './tar-builder.js';
export type { TarEntry } from './tar-builder.js';
export { readXattrs, writeXattrs } from './xattrs.js';
export type { XattrChange } from './xattrs.js';
export { createMemoryMetadataStore } from '../metadata/memory-store.js';
export { mountsBelow, withSuiteDirectory } from './suite-directory.js';
