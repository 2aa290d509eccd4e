/**
 * The packet filter of a host with Docker and an overlay, for iptables-restore: the chains that Docker makes for its
 * default bridge, connection tracking and masquerading, and what an overlay adds so that its packets pass.
 */
export interface RulesOptions {
  readonly bridge: string;
  readonly network: string;
  /** Of this host's containers. */
  readonly subnet: string;
}

export function dockerRules({ bridge, network, subnet }: RulesOptions): string {
  return `*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s ${network} -d ${network} -j RETURN
-A POSTROUTING -s ${subnet} ! -o ${bridge} -j MASQUERADE
-A DOCKER -i ${bridge} -j RETURN
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o ${bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o ${bridge} -j DOCKER
-A FORWARD -i ${bridge} ! -o ${bridge} -j ACCEPT
-A FORWARD -i ${bridge} -o ${bridge} -j ACCEPT
-A FORWARD -s ${network} -j ACCEPT
-A FORWARD -d ${network} -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i ${bridge} ! -o ${bridge} -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o ${bridge} -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
`;
}
