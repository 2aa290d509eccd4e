/** This host as a node: an identity for life, and the place on the underlay that it may move away from. */
import type { Node, UnderlayAddress } from '../model/node.js';

export class LocalNode {
  #current: Node;

  constructor(identity: Pick<Node, 'id' | 'bootId'>, underlay: UnderlayAddress) {
    this.#current = { ...identity, ...underlay };
  }

  get current(): Node {
    return this.#current;
  }

  move(to: UnderlayAddress): void {
    this.#current = { ...this.#current, ...to };
  }
}
