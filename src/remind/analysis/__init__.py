"""The paper's analyses, on any run or cohort. One file each; what each finds is a table and a picture."""
