"""What nbconvert's own preprocessors leave in an edition for students: speaker notes, which give answers away."""

from nbconvert.preprocessors import Preprocessor


class WithoutSpeakerNotes(Preprocessor):
    """Used by `make student` as `--NotebookExporter.preprocessors=edition.WithoutSpeakerNotes`."""

    def preprocess_cell(self, cell, resources, index):
        cell.metadata.pop("speaker_notes", None)
        return cell, resources
