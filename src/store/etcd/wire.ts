/** Converts between the inner port and etcd3's messages, whose 64-bit numbers are decimal text and enums are names. */
import { CompareResult, CompareTarget, type ICompare, type IEvent, type IKeyValue, type IRequestOp } from 'etcd3';
import type { Compare, KeyEvent, KeyValue, Write } from '../kv.js';

/** The network document may be the longest. Longer values are left out where they arrive, so that memory stays bounded. */
const longestValue = 64 * 1024;
const nothing = Buffer.alloc(0);

export function readKeyValue(kv: IKeyValue): KeyValue {
  const omittedBytes = kv.value.length > longestValue ? kv.value.length : undefined;
  return {
    key: kv.key,
    value: omittedBytes === undefined ? kv.value : nothing,
    ...(omittedBytes !== undefined && { omittedBytes }),
    createRevision: BigInt(kv.create_revision),
    modRevision: BigInt(kv.mod_revision),
    leaseId: kv.lease,
  };
}

export function readEvent(event: IEvent): KeyEvent {
  // The types of etcd3 have 'Delete', and its messages have 'DELETE'.
  return event.type.toLowerCase() === 'delete'
    ? { kind: 'delete', key: event.kv.key, revision: BigInt(event.kv.mod_revision) }
    : { kind: 'put', entry: readKeyValue(event.kv) };
}

export function writeCompare(compare: Compare): ICompare {
  const { Equal, Less } = CompareResult;
  switch (compare.kind) {
    case 'unchanged-since':
      return {
        key: compare.range.start,
        range_end: compare.range.end,
        target: CompareTarget.Mod,
        result: Less,
        mod_revision: String(compare.revision + 1n),
      };
    case 'absent':
      return { key: compare.key, target: CompareTarget.Create, result: Equal, create_revision: '0' };
    case 'modified-at':
      return { key: compare.key, target: CompareTarget.Mod, result: Equal, mod_revision: String(compare.revision) };
    case 'lease':
      return { key: compare.key, target: CompareTarget.Lease, result: Equal, lease: compare.leaseId };
  }
}

export function writeOperation(write: Write): IRequestOp {
  if (write.kind === 'delete') return { request_delete_range: { key: write.key } };
  return { request_put: { key: write.key, value: write.value, lease: write.leaseId } };
}
