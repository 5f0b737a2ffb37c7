// words.tsv as a trie: what a search may write, and how common each word is.

import type { Spelling } from "./specification.ts";

export const ROOT = 0;

export class Lexicon {
  private readonly firstChild: number[] = [-1];
  private readonly nextSibling: number[] = [-1];
  private readonly letter: number[] = [0];
  /** Natural log of a word's share; -Infinity for a prefix that is no word. */
  readonly logPrior: number[] = [-Infinity];
  /** Highest `logPrior` of the words that begin with the prefix. */
  readonly best: number[];
  private readonly spellings: { label: number; letters: number[]; starts: boolean }[];

  constructor(text: string, spellings: Spelling[]) {
    this.spellings = spellings.map((item) => ({ ...item, letters: codes(item.letters) }));
    const [parent, lastChild, path] = [[0], [-1], [ROOT]];
    for (let at = 0, before = ""; at < text.length;) { // 200,000 lines: nothing is made of each
      const [tab, end] = [text.indexOf("\t", at), text.indexOf("\n", at)];
      const word = text.slice(at, tab);
      let shared = 0;
      while (shared < word.length && word.charCodeAt(shared) === before.charCodeAt(shared)) shared++;
      path.length = shared + 1;
      for (let i = shared; i < word.length; i++) {
        const node = this.letter.push(word.charCodeAt(i)) - 1, above = path[i];
        for (const links of [this.firstChild, this.nextSibling, lastChild]) links.push(-1);
        this.logPrior.push(-Infinity);
        parent.push(above);
        if (lastChild[above] < 0) this.firstChild[above] = node;
        else this.nextSibling[lastChild[above]] = node;
        lastChild[above] = node;
        path.push(node);
      }
      this.logPrior[path[word.length]] = Number(text.slice(tab + 1, end));
      [before, at] = [word, end + 1];
    }
    this.best = this.logPrior.slice();
    for (let node = this.best.length - 1; node > ROOT; node--) {
      this.best[parent[node]] = Math.max(this.best[parent[node]], this.best[node]);
    }
  }

  /** Return each label that may follow a prefix, and the node that it leads to. */
  continuations(node: number, isFirst: boolean): { label: number; node: number }[] {
    const found: { label: number; node: number }[] = [];
    for (const { label, letters, starts } of this.spellings) {
      if ((starts || !letters.length) && !isFirst) continue;
      let reached = node;
      for (const letter of letters) {
        reached = this.firstChild[reached];
        while (reached >= 0 && this.letter[reached] !== letter) reached = this.nextSibling[reached];
        if (reached < 0) break;
      }
      if (reached >= 0) found.push({ label, node: reached });
    }
    return found;
  }
}

const codes = (text: string) => Array.from({ length: text.length }, (_, i) => text.charCodeAt(i));
