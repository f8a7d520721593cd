package pglog

import "context"

// Retained is how many bytes of log the slot keeps the server from recycling. It returns ErrNoSlot when there is no such
// slot. A slot whose log has been taken away retains nothing: see [SlotState].
func (s *Server) Retained(ctx context.Context, slot string) (bytes int64, err error) {
	st, err := s.Slot(ctx, slot)
	if err != nil {
		return 0, err
	}
	return st.Retained, nil
}
