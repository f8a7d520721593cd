package witness

// LeaveOut does to a session what a disk does that fails under it.
func (w *Witness) LeaveOut(id string, err error) {
	for _, s := range w.order {
		if s.id.String() == id {
			s.leaveOut(err)
		}
	}
}
