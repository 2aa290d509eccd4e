/** ICMP about the peers, by the host's ICMP socket. */
import { openIcmp, type IcmpNews, type IcmpSocket } from '../host/icmp.js';
import { messageOf } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import type { OpenPeerIcmp } from '../agent/ports.js';

const udpProtocol = 17;
const payloadBytes = 8;

export function peerIcmp(log: Log): OpenPeerIcmp {
  return listener => {
    let socket: IcmpSocket | undefined;
    let sequence = 0;
    const onNews = (news: IcmpNews): void => {
      if (news.kind === 'reply') {
        if (news.identifier === socket?.identifier) listener.answered(news.from);
        return;
      }
      const { quoted, from, type, code } = news;
      if (quoted.protocol !== udpProtocol || !quoted.ports) return;
      listener.refused(quoted.destination, quoted.ports.destination, { from, type, code });
    };
    try {
      socket = openIcmp(onNews);
    } catch (error) {
      log.debug('peer.icmp', `no ICMP socket: ${messageOf(error)}`);
    }
    return {
      ask(to) {
        if (!socket) return false;
        try {
          sequence = (sequence + 1) & 0xffff;
          socket.sendEcho(to, { sequence, payloadBytes, df: false });
          return true;
        } catch {
          return false;
        }
      },
      close: () => socket?.close(),
    };
  };
}
