/** The public shapes of registries: where they are, and who asks. No logic. */

/** What a registry takes to know who asks. */
export type RegistryCredentials =
  { readonly username: string; readonly password: string } | { readonly identityToken: string };

/** How one host is reached. */
export interface RegistryHost {
  /** Asked first, in this order, when pulling: `mirror.lan:5000`, or a URL with a path. The host itself comes last. */
  readonly mirrors?: readonly string[];
  /** Certificates of an authority of your own, in PEM; or the path of a file that holds them. */
  readonly ca?: string;
  /** HTTP without TLS. Default: TLS, except that loopback hosts that do not speak it are asked without. */
  readonly plainHTTP?: boolean;
}

/** Options of everything that speaks to a registry. Times are milliseconds. */
export interface RegistryOptions {
  /**
   * Asked once for each host that wants to know (`docker.io`, `ghcr.io`, `localhost:5000`); undefined: anonymous.
   * Default: the files of podman and Docker: `$REGISTRY_AUTH_FILE` alone, or containers' `auth.json`, then
   * `~/.docker/config.json` with its credential helpers.
   */
  readonly credentials?: (host: string) => Promise<RegistryCredentials | undefined>;
  /** By `host[:port]`. Default: `/etc/containerd/certs.d/HOST/hosts.toml`, else `/etc/docker/certs.d/HOST`. */
  readonly hosts?: Readonly<Record<string, RegistryHost>>;
  /** Blobs at once, over all pulls and pushes of one `Images`. Default 4. */
  readonly concurrency?: number;
  /** Without a byte for so long, a connection counts as broken. Default 30,000. */
  readonly noProgressTimeout?: number;
  /** Further tries of one request or of one broken body, with growing pauses. Default 5. `Retry-After` is obeyed up to 60 s. */
  readonly retries?: number;
}
