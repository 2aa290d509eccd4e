/** The port to the kernel's network configuration. */
import type { HostPlan } from '../model/plan.js';
import type { Ipv4, Prefix } from '../model/ipv4.js';
import type { UnderlayAddress } from '../model/node.js';

export interface HostInterface {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  readonly up: boolean;
  /** In kernel order. */
  readonly addresses: readonly HostAddress[];
}

export interface HostAddress {
  readonly address: Ipv4;
  readonly prefix: Prefix;
  readonly deprecated: boolean;
  readonly permanent: boolean;
}

/** What one pass found and did. */
export interface HostState {
  /** One line per change made, in order: `route add 10.5.0.0/16 metric 0 dev tartan0`. Empty when all was as planned. */
  readonly changes: readonly string[];
  /** Things of somebody else that stand in the way and were left alone. */
  readonly conflicts: readonly string[];
}

export interface ApplyOptions {
  readonly signal: AbortSignal;
}

export interface HostNetwork {
  interfaces(): Promise<readonly HostInterface[]>;
  /** The interface and source address the kernel would use to reach an address, undefined when unreachable. */
  routeTo(address: Ipv4): Promise<{ readonly interfaceName: string; readonly source: Ipv4 } | undefined>;
  /** The interface of the first IPv4 default route in the main table, and its gateway. */
  defaultRoute(): Promise<{ readonly interfaceName: string; readonly gateway: Ipv4 | undefined } | undefined>;
  /**
   * Makes the host equal to the plan: reads what is ours, adds before it removes, tries every step.
   * @throws TartanError HOST_REFUSED that lists the steps that failed, after all were tried
   */
  apply(want: HostPlan, o: ApplyOptions): Promise<HostState>;
  /** Removes everything of ours: routes, rules, link addresses. What is not ours stays. */
  cleanup(o: ApplyOptions): Promise<HostState>;
  /** Rings after any change of links, addresses, routes or (nftables only) packet filter rules, whoever made it. */
  onChange(listener: () => void): void;
  close(): Promise<void>;
}

/** What carries the tunnel. */
export interface Underlay {
  /** By the options of the start, now. @throws TartanError HOST_REFUSED where there is no interface for the tunnel */
  choose(): Promise<UnderlayAddress>;
  /** Refuses a network that contains what the last choice hangs on. @throws TartanError CONFIG_INVALID */
  check(network: Prefix): void;
}
