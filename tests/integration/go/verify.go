// Verify reads an exported ledger with Go's own transparency-log packages (golang.org/x/mod/sumdb), which share no
// code and no author with the hub: what they accept does not rest on our reading of the standards.
//
//	verify -dir EXPORT -key VKEY [-witness VKEY] [-old CHECKPOINT] [-proof FILE]
//
// It prints one line for each thing proved, and exits 1 at the first that is not.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// width is the number of hashes in a full tile, and of entries in a full bundle.
const width = 256

func main() {
	dir := flag.String("dir", "", "exported folder")
	key := flag.String("key", "", "verifier key of the log")
	witness := flag.String("witness", "", "verifier key of a witness that must have cosigned")
	old := flag.String("old", "", "file with an older checkpoint")
	proof := flag.String("proof", "", "tlog-proof file that carries its entry")
	flag.Parse()
	if err := run(*dir, *key, *witness, *old, *proof); err != nil {
		fmt.Println("FAIL", err)
		os.Exit(1)
	}
}

func run(dir, key, witness, old, proof string) error {
	log, err := note.NewVerifier(key)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return err
	}
	tree, err := openCheckpoint(text, log)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	fmt.Println("checkpoint", tree.N)
	if witness != "" {
		cosigner, err := newCosigner(witness)
		if err != nil {
			return fmt.Errorf("witness key: %w", err)
		}
		if _, err := note.Open(text, note.VerifierList(cosigner)); err != nil {
			return fmt.Errorf("cosignature: %w", err)
		}
		fmt.Println("cosignature", cosigner.Name())
	}
	hashes, err := rebuild(dir, tree)
	if err != nil {
		return fmt.Errorf("entries: %w", err)
	}
	fmt.Println("entries", tree.N)
	tiles, err := checkTiles(dir, tree, hashes)
	if err != nil {
		return err
	}
	fmt.Println("tiles", tiles)
	if err := checkInclusion(tree, hashes); err != nil {
		return err
	}
	if old != "" {
		if err := checkConsistency(old, log, tree, hashes); err != nil {
			return fmt.Errorf("consistency: %w", err)
		}
	}
	if proof != "" {
		if err := checkProof(proof, log); err != nil {
			return fmt.Errorf("proof: %w", err)
		}
		fmt.Println("proof")
	}
	return nil
}

// openCheckpoint verifies the note and reads the three lines of a checkpoint.
func openCheckpoint(text []byte, log note.Verifier) (tlog.Tree, error) {
	opened, err := note.Open(text, note.VerifierList(log))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != log.Name() {
		return tlog.Tree{}, errors.New("not a checkpoint of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return tlog.Tree{}, err
	}
	return tlog.Tree{N: size, Hash: root}, nil
}

// rebuild makes the whole tree from the entries, and compares its root with the checkpoint's. It does not go through
// tlog.TileHashReader: that of x/mod 0.7.0, which Debian 12 carries, takes some full tiles without comparing them
// with the tile above.
func rebuild(dir string, tree tlog.Tree) (tlog.HashReader, error) {
	var stored []tlog.Hash
	hashes := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, index := range indexes {
			found = append(found, stored[index])
		}
		return found, nil
	})
	for first := int64(0); first < tree.N; first += width {
		count := tree.N - first
		if count > width {
			count = width
		}
		bundle, err := os.ReadFile(filepath.Join(dir, path(tlog.Tile{H: 8, L: -1, N: first / width, W: int(count)})))
		if err != nil {
			return nil, err
		}
		for i := first; i < first+count; i++ {
			if len(bundle) < 2 || len(bundle)-2 < int(binary.BigEndian.Uint16(bundle)) {
				return nil, fmt.Errorf("%d is cut off", i)
			}
			end := 2 + int(binary.BigEndian.Uint16(bundle))
			more, err := tlog.StoredHashes(i, bundle[2:end], hashes)
			if err != nil {
				return nil, err
			}
			stored = append(stored, more...)
			bundle = bundle[end:]
		}
		if len(bundle) != 0 {
			return nil, fmt.Errorf("the bundle at %d is too long", first)
		}
	}
	root, err := tlog.TreeHash(tree.N, hashes)
	if err != nil {
		return nil, err
	}
	if root != tree.Hash {
		return nil, errors.New("they do not lead to the root of the checkpoint")
	}
	return hashes, nil
}

// checkTiles compares every tile of the tree with the rebuilt one, and returns how many there are.
func checkTiles(dir string, tree tlog.Tree, hashes tlog.HashReader) (int, error) {
	var tiles []tlog.Tile
	for level, hashes := 0, tree.N; hashes > 0; level, hashes = level+1, hashes/width {
		for n := int64(0); n < hashes/width; n++ {
			tiles = append(tiles, tlog.Tile{H: 8, L: level, N: n, W: width})
		}
		if partial := hashes % width; partial > 0 {
			tiles = append(tiles, tlog.Tile{H: 8, L: level, N: hashes / width, W: int(partial)})
		}
	}
	for _, tile := range tiles {
		want, err := tlog.ReadTileData(tile, hashes)
		if err != nil {
			return 0, err
		}
		have, err := os.ReadFile(filepath.Join(dir, path(tile)))
		if err != nil {
			return 0, err
		}
		if !bytes.Equal(have, want) {
			return 0, fmt.Errorf("%s is not the tile of these entries", path(tile))
		}
	}
	return len(tiles), nil
}

// path is where a tile is exported, or a bundle for level -1. Go writes the height into the path and calls bundles
// data; the tlog-tiles layout does neither.
func path(tile tlog.Tile) string {
	return strings.Replace(strings.Replace(tile.Path(), "tile/8/", "tile/", 1), "tile/data/", "tile/entries/", 1)
}

// checkInclusion makes and checks proofs for entries at the edges of tiles and of the tree.
func checkInclusion(tree tlog.Tree, hashes tlog.HashReader) error {
	for _, index := range []int64{0, 1, 255, 256, 65535, 65536, tree.N / 2, tree.N - 1} {
		if index < 0 || index >= tree.N {
			continue
		}
		leaf, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		if err != nil {
			return err
		}
		proof, err := tlog.ProveRecord(tree.N, index, hashes)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf[0]); err != nil {
			return fmt.Errorf("inclusion of entry %d: %w", index, err)
		}
		fmt.Println("inclusion", index)
	}
	return nil
}

func checkConsistency(file string, log note.Verifier, tree tlog.Tree, hashes tlog.HashReader) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	old, err := openCheckpoint(text, log)
	if err != nil {
		return err
	}
	proof, err := tlog.ProveTree(tree.N, old.N, hashes)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash); err != nil {
		return err
	}
	fmt.Println("consistency", old.N, tree.N)
	return nil
}

// checkProof verifies a c2sp.org/tlog-proof file by itself, for the entry in its extra line.
func checkProof(file string, log note.Verifier) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	parts := bytes.SplitN(text, []byte("\n\n"), 2)
	lines := strings.Split(string(parts[0]), "\n")
	if len(parts) != 2 || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return errors.New("not a tlog-proof with its entry")
	}
	entry, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return err
	}
	var hashes tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		hashes = append(hashes, hash)
	}
	tree, err := openCheckpoint(parts[1], log)
	if err != nil {
		return err
	}
	return tlog.CheckRecord(hashes, tree.N, tree.Hash, index, tlog.RecordHash(entry))
}

// cosigner verifies cosignatures v1 (c2sp.org/tlog-cosignature), which Go's note package leaves to its users.
type cosigner struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func newCosigner(vkey string) (*cosigner, error) {
	parts := strings.SplitN(vkey, "+", 3)
	if len(parts) != 3 {
		return nil, errors.New("malformed")
	}
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != 4 {
		return nil, errors.New("not a cosignature/v1 key")
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), raw...))
	hash := binary.BigEndian.Uint32(sum[:4])
	if fmt.Sprintf("%08x", hash) != parts[1] {
		return nil, errors.New("another key id")
	}
	return &cosigner{parts[0], hash, raw[1:]}, nil
}

func (c *cosigner) Name() string    { return c.name }
func (c *cosigner) KeyHash() uint32 { return c.hash }

func (c *cosigner) Verify(msg, sig []byte) bool {
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(c.key, []byte(signed), sig[8:])
}
