/** Names that were given up for a word of the field, so that they do not come back. */

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
