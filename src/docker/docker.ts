/** The port to what Docker is told: the two environment files that its units and scripts read. */
import type { Prefix } from '../model/ipv4.js';

export interface DockerSettings {
  readonly network: Prefix;
  readonly subnet: Prefix;
  /** Bytes of the largest inner packet. */
  readonly mtu: number;
  /** Whether tartan masquerades what leaves the overlay; flannel's FLANNEL_IPMASQ. */
  readonly ipMasquerade: boolean;
}

export interface DockerFiles {
  /** The subnet of an earlier run as `subnet.env` has it, if the file is there and sound. */
  previousSubnet(): Prefix | undefined;
  /**
   * Writes both files, each only when its content changes.
   * @returns the paths written
   * @throws TartanError HOST_REFUSED naming the file; an older file stays as it was
   */
  write(settings: DockerSettings): readonly string[];
  /** Removes both files. */
  remove(): void;
}
