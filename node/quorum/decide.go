package quorum

import (
	"context"
	"fmt"

	"kai/node/record"
)

// Decide makes value the value of key, unless it has one, and returns the value that it has then: one
// decision among all who call it with that key, as long as nobody writes or deletes it in another way.
// It blocks up to twice the request timeout. An error means that nothing is known: ask again.
func (c *Coordinator) Decide(ctx context.Context, key, value []byte) (chosen []byte, err error) {
	s := c.Session()
	defer s.Close()
	var res [1]record.Result
	s.Execute([]record.Op{{Kind: record.Add, Key: key, Value: value}}, res[:])
	if res[0].Status == record.Stored {
		return value, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.Execute([]record.Op{{Kind: record.Get, Key: key}}, res[:])
	if res[0].Status != record.Found {
		return nil, fmt.Errorf("quorum: no decision yet: %s", res[0].Detail)
	}
	return append([]byte(nil), res[0].Value...), nil
}
