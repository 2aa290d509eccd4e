/**
 * Words that were ours where the field has one, each with the folders in which it meant something of ours. names.test.ts
 * reads every declared name of the sources and finds none of these; ordinary English in comments is not its business.
 */
export interface RetiredWords {
  /** Paths of the repository that begin with one of these. */
  readonly where: readonly string[];
  /** Whole identifiers, private members without their `#`. */
  readonly names: readonly string[];
}

const [everywhere, store, agent, tun, firewall] = [
  'src/',
  'src/store/',
  'src/agent/',
  'src/datapath/',
  'src/host/firewall/',
];

export const retiredNames: readonly RetiredWords[] = [
  row([everywhere], 'HeldLease heldLeaseId heldRevision heldBy heldGuard heldWrite heldPut nameHeld HeldDown'),
  row([store, agent, tun], 'held'),
  row([everywhere], 'Tenure tenure beginTenure News Sight'),
  row([store], 'step news sight Need need seen Inner follow'),
  row([everywhere], 'Survey survey Surveyor surveyor'),
  row([store], 'take isOurs valueOf listLeases releaseLease watchNetwork'),
  row([everywhere], 'footing Footing FootingSearch FootingListener standOn recall Recalled RememberedLease makeDo'),
  row([agent], 'Memory remembered remember standing Standing'),
  row([everywhere], 'openStanding Footprint footprint Vantage vantage'),
  row([everywhere], 'Succession succession Ends Publication publication findOrphans killOrphans'),
  row([tun], 'ends Make orphan Leaving leaving revive revival attach letGo'),
  row([everywhere], 'believe learnSet nameRejected said Repeated hop'),
  row([agent, store], 'become becomes learn'),
  row([everywhere], 'Vestige vestige vestiges removeVestige'),
  row([firewall], 'Look look part'),
];

/** Names of files, without folder and ending. */
export const retiredFiles: readonly string[] = words(
  'tenure survey cluster reservation-end footing recall memory remembered-lease standing underlay interfaces ' +
    'succession publication orphan vestiges',
);

function row(where: readonly string[], names: string): RetiredWords {
  return { where, names: words(names) };
}

function words(text: string): readonly string[] {
  return text.split(' ');
}

/**
 * Of C: identifiers and file names without their ending. A kind of ctags before a name, or "file", means that kind only.
 */
export const retiredC: readonly string[] = [
  // threads
  ['crew', 'crew_member', 'crew_prepare', 'crew_start', 'crew_release', 'crew_join', 'SENDS', 'RECEIVES'],
  // takeover socket, ICMP replies, adoption
  ['answer', 'answer_serve', 'answer_prepare', 'answering', 'answering_may', 'answering_send', 'icmp_may_answer'],
  ['answer_allowed', 'answer_make', 'door', 'handover', 'handover_init', 'sandbox_seal'],
  // control words and polls
  ['turn', 'turn_begin', 'TURN_FORWARD', 'TURN_PARKED', 'TURN_STOP', 'tx_turn', 'rx_turn', 'member first'],
  ['words', 'file table-words', 'table_add_words', 'words_method'],
  // buffers and the transmit batch
  ['file batch', 'struct batch', 'batch_open', 'batch_place', 'batch_reading', 'batch_cutting', 'BATCH_PACKETS'],
  ['BATCH_PLACES', 'BATCH_PACKET_BYTES', 'FIRST_PACKETS', 'outgoing', 'outgoing_add', 'outgoing_close'],
  ['outgoing_packet', 'outgoing_clear', 'outgoing_has_room', 'struct run', 'RUN_PACKETS_MAX', 'RUN_BYTES_MAX'],
  ['piece', 'pieces', 'PIECES_MAX', 'tun_write_pieces', 'sending', 'sending_flush', 'refusals', 'refusals_have'],
  ['refusals_add', 'REFUSALS_MAX'],
  // TSO packets, GRO packets, pseudo header
  ['super', 'super_read', 'super_cut', 'super_fits', 'super_finish', 'super_packet', 'super_make', 'super_put'],
  ['forward_outbound_super', 'SUPER_PAYLOAD', 'file segment', 'burst', 'beside', 'COUNTERS_BESIDE', 'strange_port'],
  ['strange_ports', 'file transport', 'transport_pseudo_sum', 'transport_sum', 'TRANSPORT_AT_PORTS'],
  ['checksum_bulk', 'checksum_bulk_plain'],
  // endpoints
  ['hop', 'by_hop', 'next_hop', 'hop_of', 'rules_hop', 'route_table_member'],
  // route slots and counters
  ['file slot', 'slot_check', 'slot_fill', 'slot_intact', 'slot_fault', 'table_checksum', 'checksum_words'],
  ['counters_add', 'descriptors_take', 'file table-file'],
].flat();
