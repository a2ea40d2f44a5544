/** The named reference that keeps a layer which a person made on the command line, until `layerstore rm`. */
export function cliReference(chainID: string): string {
  return `cli:${chainID}`;
}
